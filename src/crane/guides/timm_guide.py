"""Guides whose model timm builds: DINOv2, DINO, DINOv3, SAM, or a small random one."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crane.errors import UsageError
from crane.guides.guide import KEY, Guide
from crane.weights import RANDOM, find_weights, load_state_dict


class TimmGuide(Guide):
    """Patch features of a timm vision transformer.

    Args:
        architecture: Name of a timm model that has `forward_intermediates`, without its tag.
        weights: A published name (`timm/model.tag`), a local file (timm's own or the original
            publisher's, which timm converts), or `random`.
        options: Arguments for the model's constructor, such as `dynamic_img_size`.
        seed: Seed of `random`; the global generators are left as they were.
        weights_dir: Folder to look for weights in.
        allow_download: Whether missing weights may be fetched.
        image_size: See `Guide`.
        fit: See `Guide`.
        mean: See `Guide`.
        std: See `Guide`.

    Raises:
        UsageError: timm has no such model, the options or weights do not fit it, or the weights
            are missing and not fetched.
    """

    def __init__(
        self,
        *,
        architecture: str,
        weights: str | Path,
        options: Mapping[str, Any],
        seed: int,
        weights_dir: str | Path,
        allow_download: bool,
        image_size: int | None,
        fit: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
            hint = f"close ones of timm {timm.__version__}: {', '.join(near) or 'none'}"
            raise UsageError("a timm model", architecture, key=f"{KEY}.architecture", hint=hint)
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
                raise UsageError(
                    f"weights and options that fit {architecture}",
                    f"{weights}, {dict(options)}",
                    key=f"{KEY}.weights or {KEY}.options",
                    hint=str(error)[:500],
                ) from error
        super().__init__(
            model,
            patch_size=_patch_size(model, architecture),
            image_size=image_size,
            fit=fit,
            mean=mean,
            std=std,
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
        wanted = "a timm vision transformer with patches and forward_intermediates"
        raise UsageError(wanted, architecture, key=f"{KEY}.architecture")
    return int(patches.patch_size[0])
