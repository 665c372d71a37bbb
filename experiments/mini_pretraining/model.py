"""The small CLIP in training, read the way Crane reads it."""

from typing import NamedTuple

import open_clip
import torch
from jaxtyping import Float
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional as F

from crane.backbones import VisionTower
from crane.weights.embedded import MINI_CLIP


class Seen(NamedTuple):
    """What the vision side says of M pictures; all unit-norm, in the space of the sentences."""

    global_: Float[Tensor, "M E"]
    plain: Float[Tensor, "M N E"]
    """Patches of the ordinary ViT."""
    stream: Float[Tensor, "K N E"]
    """Patches of E-Attn, of the first K pictures and the first K damaged ones."""
    values: Float[Tensor, "M N E"]
    """Patches of D-Attn under a guide that sees no two patches alike."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention. In bfloat16 on a CPU, with the backward pass, in a third of the time
    that `scaled_dot_product_attention` takes for these sizes.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v


class MiniClip(nn.Module):
    """open_clip's model, and the three readings of its patches that Crane knows.

    Args:
        num_stream_blocks: Last blocks with a second stream, as in conf/backbone/mini.yaml.
        correlation: Which self-correlations E-Attn adds up: `q`, `k`, `v`.
    """

    def __init__(self, num_stream_blocks: int, correlation: list[str]) -> None:
        super().__init__()
        self.clip = open_clip.create_model(MINI_CLIP, pretrained_image=False)
        self.tower = VisionTower(self.clip.visual, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        self.tokenizer = open_clip.get_tokenizer(MINI_CLIP)
        self.first = len(self.tower.blocks) - num_stream_blocks
        self.correlation = correlation

    def say(self, sentences: list[str]) -> Float[Tensor, "R E"]:
        """Unit-norm embeddings of sentences."""
        ids = self.tokenizer(sentences).to(self.tower.class_token.device)
        return F.normalize(self.clip.encode_text(ids).float(), dim=-1)

    def see(self, images: Float[Tensor, "M 3 S S"], chosen: Tensor) -> Seen:
        """Embeddings of pictures (RGB in [0, 1]); `chosen` ones have a second stream."""
        h = self.tower.embed(images)
        z = after = h
        for number, block in enumerate(self.tower.blocks):
            q, k, v = block.qkv(h)
            if number >= self.first:
                z = h[chosen] if number == self.first else z
                terms = {"q": q[chosen], "k": k[chosen], "v": v[chosen]}
                own = [attend(terms[t], terms[t], terms["v"]) for t in self.correlation]
                z = z + block.project(torch.stack(own).sum(0))
            after = h + block.project(attend(q, k, v))
            h = after + block.mlp(after)
        last = self.tower.blocks[len(self.tower.blocks) - 1]
        values = last.project(last.values(after)[:, :, 1:])
        return Seen(
            self._joint(h[:, 0]), self._joint(h[:, 1:]), self._joint(z[:, 1:]), self._joint(values)
        )

    def _joint(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.to_joint(tokens).float(), dim=-1)
