"""The small CLIP in training, with the patch embeddings that Crane uses."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.backbones import TextTower, VisionTower
from crane.config import compose
from crane.gate import build
from crane.guides import Guide
from crane.weights import open_clip_with_mini
from crane.weights.catalogue import MINI_CLIP, MINI_FOLDER


class ImageEmbeddings(NamedTuple):
    """Unit-norm embeddings of M pictures in the joint space; K of them have second streams."""

    global_: Float[Tensor, "M E"]
    plain: Float[Tensor, "M N E"]
    """Patches of the ordinary ViT."""
    stream: Float[Tensor, "K N E"]
    """Patches of E-Attn for the selected pictures."""
    values: Float[Tensor, "K N E"]
    """Patches of D-Attn for the selected pictures."""


class MiniClip(nn.Module):
    """An open_clip model that also computes the patches of E-Attn and D-Attn.

    Args:
        num_stream_blocks: Number of last blocks with a second stream, as in
            conf/backbone/mini.yaml.
        correlation: The self-correlations that E-Attn sums: `q`, `k`, `v`.
    """

    def __init__(self, num_stream_blocks: int, correlation: list[str]) -> None:
        super().__init__()
        open_clip = open_clip_with_mini()
        self.clip = open_clip.create_model(MINI_CLIP, pretrained_image=False)
        self.tower = VisionTower(self.clip.visual, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        self.tokenizer = open_clip.get_tokenizer(MINI_CLIP)
        self.text = TextTower(self.clip, self.tokenizer)
        self.first = len(self.tower.blocks) - num_stream_blocks
        self.correlation = correlation

    def load_embedded(self) -> None:
        """Take the weights of the package."""
        weights = load_file(MINI_FOLDER / f"{MINI_CLIP}.safetensors")
        self.clip.load_state_dict({name: weight.float() for name, weight in weights.items()})

    def encode_text(self, sentences: list[str]) -> Float[Tensor, "R E"]:
        """Unit-norm embeddings of sentences, computed without padding."""
        ids = self.tokenizer(sentences).to(self.tower.class_token.device)
        ends = ids.argmax(dim=1)
        rows = self.text.token_embedding(ids[:, : int(ends.max()) + 1])
        none = rows.new_empty(0, len(rows), 0, rows.shape[-1])
        return F.normalize(self.text(rows, ends, none).float(), dim=-1)

    def encode_images(
        self,
        images: Float[Tensor, "M 3 S S"],
        chosen: Tensor,
        kept: Int[Tensor, "M N"] | None = None,
        correlations: Float[Tensor, "K N N"] | None = None,
    ) -> ImageEmbeddings:
        """Embeddings of pictures.

        Args:
            images: RGB in [0, 1].
            chosen: Indices of the pictures that E-Attn and D-Attn also process.
            kept: Indices of the patches used from each picture; None uses all.
            correlations: D-Attn's correlations for the selected pictures; None correlates each
                patch with itself only.
        """
        h = self.tower.embed(images)
        if kept is not None:
            index = kept[:, :, None].expand(-1, -1, h.shape[-1])
            h = torch.cat([h[:, :1], h[:, 1:].gather(1, index)], dim=1)
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
        return ImageEmbeddings(
            self._joint(h[:, :1])[:, 0],
            self._joint(h[:, 1:]),
            self._joint(z[:, 1:]),
            self._joint(values),
        )

    def _joint(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.to_joint(tokens).float(), dim=-1)


def small_guide(weights: str) -> tuple[Guide, GuidedAttention]:
    """The small guide with the given weights, and D-Attn, as configured in conf/guide/mini.yaml.

    Args:
        weights: A path, `random`, or `crane-mini-guide/embedded` for the package's own.
    """
    own = ["method=crane_plus", "guide=mini", f"guide.features.weights='{weights}'"]
    guide = compose("train", own).guide
    return build(guide.features, "guide.features"), build(guide.attention, "guide.attention")
