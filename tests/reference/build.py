"""Models of `crane` with generated weights, built through the one public call.

They take normalised images, as the slow reference and the golden files have them: the vision
tower's own mean is set to 0 and its standard deviation to 1.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from crane.config import compose
from crane.methods import Crane, build_model
from crane.prompts import PromptLearner, pad_suffix
from reference.generated import VOCABULARY

ATTENTION_OPTION = {"(q+k+v)^2": "qkv_squared"}
"""Options of the attention group that are not named as the variant is."""


class FixedFeatures(nn.Module):
    """A guide that has seen the images already: it answers with what it was given."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == len(self.features), "the features of other images"
        return self.features


@lru_cache(maxsize=64)
def composed(*overrides: str) -> DictConfig:
    """The configuration of `crane train OVERRIDES`; shared, so not to be changed."""
    return compose("train", overrides)


def build(
    overrides: Sequence[str],
    clip: Mapping[str, Tensor],
    prompts: Mapping[str, Tensor] | None = None,
    features: Tensor | None = None,
) -> Crane:
    """`crane train OVERRIDES` with a CLIP under OpenAI's names, for images already normalised."""
    guide = None if features is None else FixedFeatures(features)
    model = build_model(
        composed(*overrides),
        clip_state_dict=clip,
        prompt_state_dict=prompts,
        guide=guide,
    )
    model.vision.tower.mean.zero_()
    model.vision.tower.std.fill_(1.0)
    return model


def official_names(model: Crane) -> dict[str, nn.Parameter | Tensor]:
    """A model's learned tensors under the official code's names."""
    learned = model.prompts
    deep = {f"compound_prompts_text.{j}": one for j, one in enumerate(learned.deep)}
    return {"ctx_pos": learned.words["normal"], "ctx_neg": learned.words["anomalous"]} | deep


def official_gradients(model: Crane) -> dict[str, Tensor]:
    """Their gradients, likewise."""
    learned = model.prompts
    of_deep = () if learned.deep.grad is None else learned.deep.grad  # None where there are no sets
    deep = {f"compound_prompts_text.{j}": one for j, one in enumerate(of_deep)}
    words = {"ctx_pos": learned.words["normal"], "ctx_neg": learned.words["anomalous"]}
    return {name: word.grad for name, word in words.items()} | deep


def furthest(ours: Tensor, wanted: Tensor) -> float:
    """The largest distance between two tensors of as many numbers."""
    assert ours.numel() == wanted.numel(), (tuple(ours.shape), tuple(wanted.shape))
    distance = (ours.detach().double().flatten() - wanted.double().flatten()).abs().max()
    assert torch.isfinite(distance), "not a number"
    return distance.item()


class StubText(nn.Module):
    """What prompts need of a text tower, of any width, without its weights.

    Args:
        width: Width of a token.
        joint_width: Width of an embedded sentence; that of a token where it is None.
        num_blocks: Blocks of the tower.
        embedding: One vector for every token, (width,).
        max_length: The most tokens of a sentence.
    """

    def __init__(
        self,
        width: int,
        joint_width: int | None = None,
        num_blocks: int = 12,
        embedding: Tensor | None = None,
        max_length: int = 77,
    ) -> None:
        super().__init__()
        one = torch.zeros(width) if embedding is None else embedding
        self.token_embedding = nn.Embedding.from_pretrained(one.expand(VOCABULARY, width))
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(num_blocks))
        self.width = width
        self.joint_width = width if joint_width is None else joint_width
        self.max_length = max_length

    def tokenize(self, sentence: str) -> Tensor:
        ids = _tokenizer()(sentence)[0]
        return ids[: int(ids.argmax()) + 1]


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def stub_learner(text: StubText, **changes: object) -> PromptLearner:
    """Prompts of the published sizes for a stub of a text tower; `changes` to its arguments."""
    return PromptLearner(text, **(_published_prompt() | {"context": pad_suffix} | changes))


@lru_cache(maxsize=1)
def _published_prompt() -> dict[str, Any]:
    published = OmegaConf.to_container(composed().prompt, resolve=True)
    assert isinstance(published, dict)
    return {name: value for name, value in published.items() if not name.startswith("_")}
