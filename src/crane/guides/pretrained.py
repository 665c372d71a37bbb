"""Guides whose model torch.hub or timm builds: DINOv2, DINO, DINOv3, SAM, or a random one."""

import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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


logger = logging.getLogger(__name__)

RESERVED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)
"""Arguments of timm that load weights; `weights` does that here."""


class TimmGuide(Guide):
    """Patch features of a timm vision transformer.

    Args:
        architecture: Name of a timm model that has `forward_intermediates`, without its tag.
        weights: A published name (`timm/model.tag`), a local file (timm's own or the original
            publisher's, which timm converts), or `random`.
        options: Arguments for the model's constructor, such as `dynamic_img_size`.
        seed: Seed for `random`; the global generators do not change.
        weights_dir: Folder searched for weights.
        allow_download: Whether missing weights may be downloaded.
        image_size: See `Guide`.
        fit: See `Guide`.
        mean: See `Guide`; None takes timm's value for the weights.
        std: Likewise.

    Raises:
        UsageError: timm has no such model, the options or weights do not fit it, or the weights
            are missing.
    """

    @checked
    def __init__(
        self,
        *,
        architecture: Text,
        weights: Text | Path,
        options: Mapping[str, Any],
        seed: NonNegativeInt,
        weights_dir: Text | Path,
        allow_download: bool,
        image_size: PositiveInt | None,
        fit: Fit,
        mean: Mean | None = None,
        std: Std | None = None,
    ) -> None:
        import timm  # imports torchvision: seconds

        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
            close = f"; close names are {', '.join(near)}" if near else ""
            raise UsageError(
                f"timm {timm.__version__} has no model {architecture!r}{close}",
                key=f"{KEY}.architecture",
            )
        if reserved := sorted(set(RESERVED) & set(options)):
            raise UsageError(
                f"{', '.join(reserved)} is not taken here; {KEY}.weights says which weights are "
                "loaded",
                key=f"{KEY}.options",
            )
        given: dict[str, Any] = {}
        if weights != RANDOM:
            path = find_weights(weights, weights_dir, allow_download, key=f"{KEY}.weights")
            given = {
                "pretrained": True,
                "pretrained_cfg_overlay": {"state_dict": load_state_dict(path)},
            }
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                model = timm.create_model(architecture, num_classes=0, **options, **given)
            except (TypeError, RuntimeError, KeyError) as error:
                if given:
                    names = given["pretrained_cfg_overlay"]["state_dict"]
                    refuse_transformers(names, path, f"{KEY}.weights")
                raise UsageError(
                    f"{weights} with options {dict(options)} does not fit {architecture}: "
                    f"{one_line(error)}; change {KEY}.weights or {KEY}.options",
                    key=f"{KEY}.weights",
                ) from error
        own_mean, own_std = _normalisation(model, str(weights), mean, std)
        super().__init__(
            model,
            patch_size=_patch_size(model, architecture),
            image_size=image_size,
            fit=fit,
            mean=own_mean,
            std=own_std,
        )

    def _features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        # norm=True: the final LayerNorm of a ViT, the neck of SAM's image encoder.
        last_layer = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=1, norm=True, intermediates_only=True
        )
        return last_layer[0]


def _patch_size(model: nn.Module, architecture: str) -> int:
    patches = getattr(model, "patch_embed", None)
    if patches is None or not hasattr(model, "forward_intermediates"):
        raise UsageError(
            f"must be a timm vision transformer with patches and forward_intermediates, not "
            f"{architecture!r}",
            key=f"{KEY}.architecture",
        )
    return int(patches.patch_size[0])


def _normalisation(
    model: nn.Module, weights: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation as given, else timm's; warns if timm knows others."""
    import timm
    from timm.data import resolve_model_data_config

    known: dict[str, Any] = resolve_model_data_config(model)
    publisher, _, name = weights.partition("/")
    if publisher == "timm":  # the architecture's default weights may be others
        own = timm.get_pretrained_cfg(name)
        known = {"mean": own.mean, "std": own.std}
        for key, value in (("mean", mean), ("std", std)):
            if value is not None and tuple(value) != tuple(known[key]):
                logger.warning(
                    "%s.%s is %s, but %s was trained with %s; null takes that",
                    *(KEY, key, list(value), weights, list(known[key])),
                )
    return (known["mean"] if mean is None else mean), (known["std"] if std is None else std)
