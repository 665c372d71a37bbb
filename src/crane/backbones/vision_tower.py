"""The frozen vision tower of CLIP."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from crane.backbones.block import Block
from crane.errors import UsageError

PositionResize = Literal["bilinear", "bicubic", "bicubic_antialias"]


class VisionTower(nn.Module):
    """The parts of a CLIP vision transformer: `embed`, `blocks`, `to_joint`.

    The model runs them, since Crane has two streams through the blocks.

    Args:
        tower: A vision transformer of open_clip with a class token.
        mean: Channel means of the weights' training, for RGB in [0, 1].
        std: Channel standard deviations, likewise.

    Raises:
        UsageError: The tower has no class token (it pools or averages patches instead).
    """

    blocks: Sequence[Block]
    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        from open_clip.transformer import VisionTransformer

        super().__init__()
        if not isinstance(tower, VisionTransformer):
            raise UsageError(
                f"the backbone's vision tower is a {type(tower).__name__}; Crane needs a vision "
                "transformer of open_clip with a class token",
                key="backbone",
            )
        if tower.attn_pool is not None or tower.pool_type != "tok" or tower.final_ln_after_pool:
            pooling = "by attention" if tower.attn_pool is not None else repr(tower.pool_type)
            raise UsageError(
                f"the backbone's vision tower pools its patches ({pooling}); Crane needs one "
                "whose class token embeds the image",
                key="backbone",
            )
        self.conv, self.ln_pre, self.ln_post = tower.conv1, tower.ln_pre, tower.ln_post
        self.class_token = tower.class_embedding
        self.positions = tower.positional_embedding
        self.projection = tower.proj
        blocks = nn.ModuleList(Block(block) for block in tower.transformer.resblocks)
        self.blocks = cast(Sequence[Block], blocks)
        self.position_grid: tuple[int, int] = tuple(tower.grid_size)
        self.patch_size: tuple[int, int] = tuple(tower.patch_size)
        self.register_buffer("mean", torch.tensor(list(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(3, 1, 1), persistent=False)

    @property
    def joint_width(self) -> int:
        """E, the width that images and texts share."""
        return int(self.projection.shape[1])

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of height x width pixels.

        Raises:
            UsageError: The size is not a multiple of the patch.
        """
        rows, columns = self.patch_size
        if height % rows or width % columns or not height or not width:
            raise UsageError(
                f"must be a multiple of the {rows}x{columns} patch, not {height}x{width}",
                key="image_size",
            )
        return height // rows, width // columns

    def embed(
        self, images: Float[Tensor, "B 3 H W"], resize: PositionResize = "bilinear"
    ) -> Float[Tensor, "B T D"]:
        """Turn images (RGB in [0, 1]) into h_0: class token and patches with positions.

        Args:
            images: The images.
            resize: How positions reach another grid of patches, see `positions_for`.
        """
        grid = self.grid(*images.shape[-2:])
        patches = self.conv((images - self.mean) / self.std).flatten(2).transpose(1, 2)
        class_token = self.class_token.to(patches.dtype).expand(images.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self.positions_for(grid, resize)
        embedded: Tensor = self.ln_pre(tokens)
        return embedded

    def positions_for(
        self, grid: tuple[int, int], resize: PositionResize = "bilinear"
    ) -> Float[Tensor, "T D"]:
        """Position embeddings for a grid of patches; the class token's position stays.

        Args:
            grid: Rows and columns of patches.
            resize: Interpolation for grids other than the tower's own, always with
                align_corners=False: `bilinear` (Crane, AnomalyCLIP), `bicubic` (AdaCLIP) or
                `bicubic_antialias` (VAND). Antialiasing changes torch's bicubic kernel (a = -0.5
                instead of -0.75), so the two differ even when a grid grows.
        """
        if grid == self.position_grid:
            return self.positions
        own = self.positions[1:].T.unflatten(1, self.position_grid).unsqueeze(0)
        resized = F.interpolate(
            own,
            size=grid,
            mode=resize.removesuffix("_antialias"),
            align_corners=False,
            antialias=resize.endswith("_antialias"),
        )
        return torch.cat([self.positions[:1], resized[0].flatten(1).T])

    def to_joint(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T E"]:
        """Project tokens into the space shared with texts: LN_post(x) · proj."""
        joint: Tensor = self.ln_post(tokens) @ self.projection
        return joint
