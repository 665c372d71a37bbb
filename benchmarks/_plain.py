"""Straightforward Crane as a baseline: attention matrices in memory, sentences of 77 positions.

It uses open_clip's own modules. All tokens pass through the whole last block, the first blocks are
open_clip's, sentences are padded to full length and read at the end token.
"""

import torch
from jaxtyping import Float
from open_clip import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from crane.backbones import VisionTower
from crane.prompts import PromptLearner
from crane.types import VisionTokens


def vision(
    clip: CLIP, tower: VisionTower, images: Float[Tensor, "B 3 H W"], num_blocks: int
) -> VisionTokens:
    """Crane's vision features (E-Attn of q, k and v) with materialised attention matrices.

    Args:
        clip: The model.
        tower: The same vision tower; embeds patches and projects to the joint space.
        images: RGB in [0, 1].
        num_blocks: Number of last blocks with a second stream.
    """
    h = tower.embed(images)
    z = None
    blocks = clip.visual.transformer.resblocks
    for number, block in enumerate(blocks):
        if number < len(blocks) - num_blocks:
            h = block(h)
            continue
        added, own = _attend(block, block.ln_1(h))
        z = (h if z is None else z) + own
        h = h + added
        h = h + block.mlp(block.ln_2(h))
    assert z is not None
    patches = F.normalize(tower.to_joint(z[:, 1:]), dim=-1)
    global_ = F.normalize(tower.to_joint(h[:, :1]).squeeze(1), dim=-1)
    return VisionTokens(global_, patches.unsqueeze(0), tower.grid(*images.shape[-2:]))


def _attend(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block's ordinary attention, and E-Attn."""
    attention = block.attn
    flat = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = flat.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    ordinary = _weights(q, k)
    own = _weights(q, q) + _weights(k, k) + _weights(v, v)
    both = [(weights @ v).transpose(1, 2).flatten(2) for weights in (ordinary, own)]
    return attention.out_proj(both[0]), attention.out_proj(both[1])


def _weights(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(-2, -1) * a.shape[-1] ** -0.5).softmax(dim=-1)


def sentences(
    clip: CLIP, prompts: PromptLearner, image: Float[Tensor, "B E"]
) -> Float[Tensor, "B 2 E"]:
    """Unit-norm text embeddings for each image, computed at all positions.

    Args:
        clip: The model.
        prompts: Learned prompts.
        image: Global embeddings of the images, part of the prompts.
    """
    rows, ends, deep = prompts(image)
    length = clip.positional_embedding.shape[0]
    x = F.pad(rows, (0, 0, 0, length - rows.shape[1])) + clip.positional_embedding
    mask = clip.attn_mask
    for number, block in enumerate(clip.transformer.resblocks):
        if 0 <= number - 1 < len(deep):
            learned = deep[number - 1]
            x = torch.cat([x[:, :1], learned, x[:, 1 + learned.shape[1] :]], dim=1)
        x = block(x, attn_mask=mask)
    x = clip.ln_final(x)
    read = x[torch.arange(len(x), device=x.device), ends] @ clip.text_projection
    return F.normalize(read, dim=-1).unflatten(0, (-1, 2))
