"""Guides whose model torch.hub builds from a repository with DINOv2's interface."""

import warnings
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crane.checks import NonNegativeInt, PositiveInt, Text, checked
from crane.errors import UsageError
from crane.guides.guide import KEY, Fit, Guide, Mean, Std, one_line
from crane.weights import (
    RANDOM,
    find_hub_code,
    find_weights,
    load_state_dict,
    refuse_transformers,
)


class HubGuide(Guide):
    """Patch features of a torch.hub model that has DINOv2's `get_intermediate_layers`.

    The model is built without weights from the repository's code, then filled from a weight file
    that is found like any other.

    Args:
        repo: GitHub repository pinned at a commit, `owner/name:commit`.
        source: `github`, or `local` for a clone in `repo_dir`.
        repo_dir: Folder with a clone's `hubconf.py`; None with `source=github`.
        entry: Name of the function in `hubconf.py`; it must take `pretrained=False`.
        weights: A published name, a local file, or `random`.
        seed: Seed for `random`; the global generators do not change.
        weights_dir: Folder searched for weights.
        allow_download: Whether missing code and weights may be downloaded.
        image_size: See `Guide`.
        fit: See `Guide`.
        mean: See `Guide`.
        std: See `Guide`.

    Raises:
        UsageError: The code or the weights are missing or do not fit, or the code fails.
    """

    @checked
    def __init__(
        self,
        *,
        repo: Text,
        source: Literal["github", "local"],
        repo_dir: Text | Path | None,
        entry: Text,
        weights: Text | Path,
        seed: NonNegativeInt,
        weights_dir: Text | Path,
        allow_download: bool,
        image_size: PositiveInt | None,
        fit: Fit,
        mean: Mean,
        std: Std,
    ) -> None:
        code = find_hub_code(repo, source, repo_dir, allow_download, key=KEY)
        path = None
        if weights != RANDOM:
            path = find_weights(weights, weights_dir, allow_download, key=f"{KEY}.weights")
        model = _build(code, entry, seed)
        if path is not None:
            _fill(model, load_state_dict(path), path)
        super().__init__(
            model,
            patch_size=int(model.patch_size),  # type: ignore[arg-type]
            image_size=image_size,
            fit=fit,
            mean=mean,
            std=std,
        )

    def _features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        layers = self.model.get_intermediate_layers(  # type: ignore[operator]
            images, n=1, reshape=True, norm=True
        )
        return layers[0]


def _build(code: Path, entry: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # DINOv2 warns three times that xFormers, which it does not need, is not installed.
        warnings.filterwarnings("ignore", message="xFormers")
        torch.default_generator.manual_seed(seed)
        try:
            model = torch.hub.load(str(code), entry, source="local", pretrained=False)
        except (RuntimeError, TypeError) as error:  # torch.hub: "Cannot find callable ..."
            raise UsageError(
                f"must be a function of {code / 'hubconf.py'} that takes pretrained=False, not "
                f"{entry!r}: {error}",
                key=f"{KEY}.entry",
            ) from error
        except (Exception, SystemExit) as error:  # the repository's own code
            advice = "; install what it imports" if isinstance(error, ImportError) else ""
            raise UsageError(
                f"{entry} in {code / 'hubconf.py'} fails with {type(error).__name__}: {error}"
                + advice,
                key=KEY,
            ) from error
    if not (hasattr(model, "get_intermediate_layers") and hasattr(model, "patch_size")):
        raise UsageError(
            "must build a model with DINOv2's get_intermediate_layers and patch_size, not a "
            f"{type(model).__name__} ({entry})",
            key=f"{KEY}.entry",
        )
    return model


def _fill(model: nn.Module, state_dict: dict[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        refuse_transformers(state_dict, path, f"{KEY}.weights")
        raise UsageError(
            f"the weights in {path} do not fit the guide: {one_line(error)}", key=f"{KEY}.weights"
        ) from error
