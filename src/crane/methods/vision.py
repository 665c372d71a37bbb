"""The vision side of Crane: CLIP's frozen tower, a second stream beside it, a guide's features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention, SecondStream
from crane.backbones import VisionTower
from crane.errors import UsageError
from crane.types import VisionTokens

ALL, CLASS, PATCHES = slice(None), slice(0, 1), slice(1, None)
"""Tokens: the class token comes first."""

NO_STREAM = SecondStream(None, 0)


class VisionEncoder(nn.Module):
    """Images to a global embedding g and local embeddings: Z of E-Attn, D of D-Attn, or both.

    Args:
        tower: CLIP's vision tower.
        stream: E-Attn; None leaves out its local embedding, which needs a guide.
        guide: A frozen model of patch features; None is Crane, any guide is Crane+.
        guided: D-Attn, how the guide's features become attention; required with a guide.
        taps: Blocks, counted from 1, after which the second stream (before its first block, the
            ViT) is a local embedding too; after the last block it always is.
        norm_global: Whether LN_post applies to the class token. AnomalyCLIP leaves it out.

    Raises:
        UsageError: No local embedding is left, the guide and its attention come apart, or the
            stream has more blocks than the tower.
    """

    def __init__(
        self,
        tower: VisionTower,
        stream: SecondStream | None,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
        *,
        taps: Sequence[int] = (),
        norm_global: bool = True,
    ) -> None:
        super().__init__()
        if stream is None and guide is None:
            raise UsageError(
                "attention=none needs a guide, and guide=none an attention; choose one of them",
                key="attention",
            )
        _check_guide(guide, guided)
        if stream is not None and stream.num_blocks > len(tower.blocks):
            raise UsageError(
                f"must be at most {len(tower.blocks)}, the backbone's blocks, "
                f"not {stream.num_blocks}",
                key="attention.num_blocks",
            )
        self.tower, self.guide = tower, guide
        self.stream, self.guided = stream, guided
        self.taps, self.norm_global = frozenset(taps), norm_global

    @property
    def _read_last(self) -> tuple[slice, slice]:
        """Tokens of the ViT's last block that reach an output: after its attention, after its MLP.

        The class token always does; patches only if they are a local embedding themselves, or if
        D-Attn takes its values after the block's attention.
        """
        if self.stream is not None and self.stream.num_blocks == 0:
            return ALL, ALL
        is_read = self.guided is not None and self.guided.value_input == "after_attention"
        return (ALL if is_read else CLASS), CLASS

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> VisionTokens:
        """Encode images (RGB in [0, 1]) without gradients: nothing here is trained."""
        grid = self.tower.grid(*images.shape[-2:])
        stream = self.stream or NO_STREAM
        first, last = len(self.tower.blocks) - stream.num_blocks, len(self.tower.blocks) - 1

        h = self.tower.embed(images)
        z: Tensor | None = None
        tapped: list[Tensor] = []
        for number, block in enumerate(self.tower.blocks):
            attending, kept = self._read_last if number == last else (ALL, ALL)
            q, k, v = block.qkv(h)
            if stream.correlation is not None and number >= first:
                # E-Attn: beside the ViT, fed by it, without an MLP
                z = (h if z is None else z) + block.project(stream.correlation(q, k, v))
            before = h
            attended = F.scaled_dot_product_attention(q[:, :, attending], k, v)
            after = h[:, attending] + block.project(attended)
            h = after[:, kept] + block.mlp(after[:, kept])
            if number + 1 in self.taps and number != last:
                tapped.append((h if z is None else z)[:, PATCHES])

        local = []
        if self.guide is not None and self.guided is not None:
            # D-Attn: the last block's values, mixed by the guide's correlations
            features = self.guide(images)
            u = after if self.guided.value_input == "after_attention" else before
            values = block.values(u[:, PATCHES]).unflatten(2, grid)
            local.append(block.project(self.guided(features, values)))
        if self.stream is not None:
            own = [*tapped, (h if z is None else z)[:, PATCHES]]
            if self.guide is not None:
                own = [_resize(one, grid, features.shape[-2:]) for one in own]
            local += own
        patches = torch.stack([F.normalize(self.tower.to_joint(x), dim=-1) for x in local])
        token = h[:, CLASS]
        joint = self.tower.to_joint(token) if self.norm_global else token @ self.tower.projection
        global_ = F.normalize(joint.squeeze(1), dim=-1)
        return VisionTokens(global_, patches, grid if self.guide is None else features.shape[-2:])


class GuidedTaps(nn.Module):
    """D-Attn for methods that compare the ViT's own patches, or those of a stream, with the text.

    R v becomes R h: the guide's correlations average whole patches instead of the last block's
    values, and the averages are local embeddings beside the patches, as D stands beside Z.

    Args:
        guide: A frozen model of patch features; None leaves the patches alone.
        guided: How its features become correlations; required with a guide.

    Raises:
        UsageError: The guide and its attention come apart, or the attention chooses values.
    """

    def __init__(self, guide: nn.Module | None, guided: GuidedAttention | None) -> None:
        super().__init__()
        _check_guide(guide, guided)
        if guided is not None and guided.value_input != "after_attention":
            raise UsageError(
                "must be after_attention, its default: this method averages whole patches, not "
                "values of the last block",
                key="guide.attention.value_input",
            )
        self.guide, self.guided = guide, guided

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"] | None:
        """The guide's patch features; None without a guide."""
        return None if self.guide is None else self.guide(images)

    def forward(
        self,
        features: Float[Tensor, "B C h w"] | None,
        taps: Sequence[Float[Tensor, "B N D"]],
        grid: tuple[int, int],
    ) -> tuple[Sequence[Float[Tensor, "B P D"]], tuple[int, int]]:
        """The averages of all taps, then the taps, both on the guide's grid; and that grid."""
        if features is None or self.guided is None:
            return taps, grid
        to = (features.shape[2], features.shape[3])
        own = [_resize(tap, grid, to) for tap in taps]
        mixed = self.guided(features, torch.stack(own, dim=1).unflatten(2, to))
        return [*mixed.unbind(dim=1), *own], to


def _check_guide(guide: nn.Module | None, guided: GuidedAttention | None) -> None:
    if (guide is None) != (guided is None):
        raise UsageError("must have features and attention, or neither", key="guide")


def _resize(
    tokens: Float[Tensor, "B N D"], grid: tuple[int, int], to: tuple[int, int]
) -> Float[Tensor, "B P D"]:
    """Resize patches to another grid bilinearly, before LN_post (spec, "D-Attn")."""
    if grid == tuple(to):
        return tokens
    planes = tokens.transpose(1, 2).unflatten(2, grid)
    resized = F.interpolate(planes, size=to, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
