"""Guides whose model torch.hub builds from a repository with DINOv2's interface."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crane.errors import UsageError
from crane.guides.guide import KEY, Guide
from crane.weights import RANDOM, find_hub_code, find_weights, load_state_dict


class HubGuide(Guide):
    """Patch features of a torch.hub model that has DINOv2's `get_intermediate_layers`.

    The repository gives the code, `weights` the numbers: the model is built without weights and
    filled from a file that is found as all others are.

    Args:
        repo: GitHub repository pinned at a commit, `owner/name:commit`.
        source: `github`, or `local` for a clone in `repo_dir`.
        repo_dir: Folder with a clone's `hubconf.py`; None with `source=github`.
        entry: Name of the function in `hubconf.py`; it must take `pretrained=False`.
        weights: A published name, a local file, or `random`.
        seed: Seed of `random`; the global generators are left as they were.
        weights_dir: Folder to look for weights in.
        allow_download: Whether missing code and weights may be fetched.
        image_size: See `Guide`.
        fit: See `Guide`.
        mean: See `Guide`.
        std: See `Guide`.

    Raises:
        UsageError: The code or the weights are missing and not fetched, or do not fit; or the
            code fails.
    """

    def __init__(
        self,
        *,
        repo: str,
        source: str,
        repo_dir: str | Path | None,
        entry: str,
        weights: str | Path,
        seed: int,
        weights_dir: str | Path,
        allow_download: bool,
        image_size: int | None,
        fit: str,
        mean: Sequence[float],
        std: Sequence[float],
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
            wanted = f"a function of {code / 'hubconf.py'} that takes pretrained=False"
            raise UsageError(wanted, entry, key=f"{KEY}.entry", hint=str(error)) from error
        except Exception as error:  # whatever the repository's own code raises
            failed = f"{type(error).__name__} of {entry} in {code / 'hubconf.py'}: {error}"
            hint = "install what it imports" if isinstance(error, ImportError) else None
            raise UsageError("code that runs here", failed, key=KEY, hint=hint) from error
    if not (hasattr(model, "get_intermediate_layers") and hasattr(model, "patch_size")):
        wanted = "a model with DINOv2's get_intermediate_layers and patch_size"
        raise UsageError(wanted, f"{entry} ({type(model).__name__})", key=f"{KEY}.entry")
    return model


def _fill(model: nn.Module, state_dict: dict[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        raise UsageError(
            "weights of this model", str(path), key=f"{KEY}.weights", hint=str(error)[:500]
        ) from error
