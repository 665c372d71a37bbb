"""The small CLIP in training, read the way Crane reads it."""

from typing import NamedTuple

import open_clip
import torch
from hydra.utils import instantiate
from jaxtyping import Float, Int
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.backbones import TextTower, VisionTower
from crane.config import compose
from crane.guides import Guide
from crane.weights.embedded import MINI_CLIP


class Seen(NamedTuple):
    """What the vision side says of M pictures; all unit-norm, in the space of the sentences."""

    global_: Float[Tensor, "M E"]
    plain: Float[Tensor, "M N E"]
    """Patches of the ordinary ViT."""
    stream: Float[Tensor, "K N E"]
    """Patches of E-Attn, of the chosen pictures."""
    values: Float[Tensor, "K N E"]
    """Patches of D-Attn, of the chosen pictures."""


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
        self.text = TextTower(self.clip, self.tokenizer)
        self.first = len(self.tower.blocks) - num_stream_blocks
        self.correlation = correlation

    def say(self, sentences: list[str]) -> Float[Tensor, "R E"]:
        """Unit-norm embeddings of sentences, whose padding is left out."""
        ids = self.tokenizer(sentences).to(self.tower.class_token.device)
        ends = ids.argmax(dim=1)
        rows = self.text.token_embedding(ids[:, : int(ends.max()) + 1])
        none = rows.new_empty(0, len(rows), 0, rows.shape[-1])
        return F.normalize(self.text(rows, ends, none).float(), dim=-1)

    def see(
        self,
        images: Float[Tensor, "M 3 S S"],
        chosen: Tensor,
        kept: Int[Tensor, "M N"] | None = None,
        correlations: Float[Tensor, "K N N"] | None = None,
    ) -> Seen:
        """Embeddings of pictures (RGB in [0, 1]).

        Args:
            images: The pictures.
            chosen: Which of them are read by E-Attn and D-Attn too.
            kept: The patches of each that are looked at; None is all.
            correlations: Of the chosen, by D-Attn's guide; None is a guide that sees no two patches
                alike.
        """
        h = self.tower.embed(images)
        if kept is not None:
            looked_at = kept[:, :, None].expand(-1, -1, h.shape[-1])
            h = torch.cat([h[:, :1], h[:, 1:].gather(1, looked_at)], dim=1)
        z = after = h
        for number, block in enumerate(self.tower.blocks):
            q, k, v = block.qkv(h)
            if number >= self.first:
                z = h[chosen] if number == self.first else z
                terms = {"q": q[chosen], "k": k[chosen], "v": v[chosen]}
                own = [
                    F.scaled_dot_product_attention(terms[t], terms[t], terms["v"])
                    for t in self.correlation
                ]
                z = z + block.project(torch.stack(own).sum(0))
            after = h + block.project(F.scaled_dot_product_attention(q, k, v))
            h = after + block.mlp(after)
        last = self.tower.blocks[len(self.tower.blocks) - 1]
        values = last.values(after[chosen])[:, :, 1:]
        if correlations is not None:
            values = correlations.unsqueeze(1) @ values
        values = last.project(values)
        return Seen(
            self._joint(h[:, :1])[:, 0],
            self._joint(h[:, 1:]),
            self._joint(z[:, 1:]),
            self._joint(values),
        )

    def _joint(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.to_joint(tokens).float(), dim=-1)


def small_guide(weights: str) -> tuple[Guide, GuidedAttention]:
    """The small guide with some weights, and D-Attn, as conf/guide/mini.yaml states them.

    Args:
        weights: A path, `random`, or `crane-mini-guide/embedded` for those of the package.
    """
    own = ["method=crane_plus", "guide=mini", f"guide.features.weights='{weights}'"]
    guide = compose("train", own).guide
    return instantiate(guide.features), instantiate(guide.attention)
