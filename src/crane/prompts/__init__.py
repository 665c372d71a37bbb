"""Learned prompts: words before "object" and "damaged object", and deep tokens.

They are the only trained parameters. An image can enter its own prompts (paper section 3.4); each
way is one function from the parts of a row, with the image as one more token, to the new row. The
row always ends with the end token, so its position follows from the length.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.checks import Fraction, NonNegativeFloat, PositiveInt, checked
from crane.errors import UsageError

STATES = ("normal", "anomalous")
"""The two sentences, in the order of the image labels."""

Tokens = Float[Tensor, "B _ D"]
Context = Callable[[Tokens, Tokens, Tokens, Tokens], tuple[Tokens, ...]]


def replace_prefix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """Put the image in the place of the first learned word."""
    return start, image, words[:, 1:], rest


def replace_suffix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """Put the image in the place of the last learned word."""
    return start, words[:, :-1], image, rest


def pad_prefix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """Put the image right after the start token, before the learned words."""
    return start, image, words, rest


def pad_suffix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """Put the image right after the learned words: the default of the paper."""
    return start, words, image, rest


@runtime_checkable
class TextEncoder(Protocol):
    """What the prompts need of a text tower."""

    token_embedding: nn.Embedding
    blocks: nn.ModuleList

    @property
    def width(self) -> int:
        """Width of a token."""

    @property
    def max_length(self) -> int:
        """Most tokens of a sentence."""

    @property
    def joint_width(self) -> int:
        """Width of an embedded sentence."""

    def tokenize(self, sentence: str) -> Int[Tensor, " L"]:
        """Token ids from the start token to the end token."""


class PromptRows(NamedTuple):
    """Sentences as rows of token embeddings, alternating normal and anomalous for each image."""

    rows: Float[Tensor, "R L D"]
    ends: Int[Tensor, " R"]
    deep: Float[Tensor, "J R K D"]


class PromptLearner(nn.Module):
    """Learned prompts `[start] c_1 … c_n "object" "." [end]`, likewise for "damaged object".

    Args:
        text: The text tower that will read the rows; used for its sizes and token embeddings only.
        words: The sentence for each state, `normal` and `anomalous`.
        num_words: Learned words before each sentence (paper: 12).
        num_deep: Learned tokens of each deep set (paper: 4).
        depth: Text blocks with learned tokens in their input, the first included (paper: 9, so 8
            deep sets).
        init_std: Standard deviation of the initial values.
        context: How the image enters the row, such as `pad_suffix`; None for static prompts.
        context_in_training: Probability that a training step uses the image context.
        context_in_testing: Whether testing and predicting use it. The published evaluation does
            not (spec, "Text").
        round_deep_to_half: Round deep tokens to float16 before use, whatever the precision, as the
            official code does.

    Raises:
        UsageError: The values do not fit the text tower or each other.
    """

    @checked
    def __init__(
        self,
        text: TextEncoder,
        *,
        words: Mapping[str, str],
        num_words: PositiveInt,
        num_deep: PositiveInt,
        depth: PositiveInt,
        init_std: NonNegativeFloat,
        context: Context | None,
        context_in_training: Fraction,
        context_in_testing: bool,
        round_deep_to_half: bool,
    ) -> None:
        super().__init__()
        self.context = context
        self.context_in_training = float(context_in_training)
        self.context_in_testing = context_in_testing
        self.round_deep_to_half = round_deep_to_half
        ids = self._token_ids(text, words)
        lengths = [len(one) + num_words for one in ids.values()]
        self._check_sizes(text, lengths, num_deep=num_deep, depth=depth)
        self._check_context(text)
        self.words = nn.ParameterDict(
            {s: nn.Parameter(init_std * torch.randn(num_words, text.width)) for s in STATES}
        )
        deep = init_std * torch.randn(depth - 1, num_deep, text.width)
        # DDP refuses trained parameters that no loss depends on, as without deep sets.
        self.deep = nn.Parameter(deep, requires_grad=depth > 1)
        for state in STATES:
            self.register_buffer(f"ids_{state}", ids[state], persistent=False)
            with torch.no_grad():
                device = text.token_embedding.weight.device
                embedded = text.token_embedding(ids[state].to(device))
            self.register_buffer(f"embedded_{state}", embedded.clone(), persistent=False)

    @staticmethod
    def _token_ids(text: TextEncoder, words: Mapping[str, str]) -> dict[str, Int[Tensor, " _"]]:
        if set(words) != set(STATES):
            raise UsageError(
                f"must have a sentence for normal and one for anomalous, not {dict(words)}",
                key="prompt.words",
            )
        ids = {state: text.tokenize(words[state]) for state in STATES}
        if torch.equal(ids["normal"], ids["anomalous"]):
            raise UsageError(
                f"must differ for normal and anomalous images, but both are {words['normal']!r}",
                key="prompt.words",
            )
        return ids

    @staticmethod
    def _check_sizes(text: TextEncoder, lengths: list[int], *, num_deep: int, depth: int) -> None:
        """Compare the sizes with those of the text tower and with the sentences' lengths."""
        if depth > len(text.blocks):
            raise UsageError(
                f"must be at most {len(text.blocks)}, the blocks of the text tower, not {depth}",
                key="prompt.depth",
            )
        if max(lengths) + 1 > text.max_length:
            raise UsageError(
                f"prompts would have {max(lengths) + 1} tokens, the image's included, but the "
                f"text tower reads {text.max_length}; take fewer",
                key="prompt.num_words",
            )
        most = min(lengths) - 2
        if num_deep > most:
            raise UsageError(
                f"must be at most {most}, the tokens between start and end, not {num_deep}",
                key="prompt.num_deep",
            )

    def _check_context(self, text: TextEncoder) -> None:
        if self.context is None and (self.context_in_training or self.context_in_testing):
            raise UsageError(
                "static prompts have no image context: set prompt.context_in_training=0 and "
                "prompt.context_in_testing=false, or choose prompt=pad_suffix",
                key="prompt",
            )
        if self.context is not None and text.width != text.joint_width:
            raise UsageError(
                "an image's embedding can be a word of the prompt only if both have the same "
                f"width, but the backbone's joint width is {text.joint_width} and its text width "
                f"{text.width}; choose another backbone, or prompt=none",
                key="backbone",
            )

    def load(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take over learned values.

        Raises:
            UsageError: They have other shapes, or are not finite numbers.
        """
        check_learned(state_dict)
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in state_dict.items()}
        if found != own:
            raise UsageError(
                f"the checkpoint's prompts have the shapes {found}, but this configuration needs "
                f"{own}; use the backbone and the prompt settings that it was trained with",
                key="checkpoint",
            )
        self.load_state_dict(dict(state_dict))

    def forward(self, image: Float[Tensor, "B D"] | None) -> PromptRows:
        """Rows for each image, or one pair of static rows.

        Args:
            image: Unit-norm global embeddings g; None for static prompts.

        Returns:
            2 B rows (2 if static), alternating normal and anomalous, padded to the longest. The
            padding follows the end token, so causal attention never reads it.
        """
        num_images = 1 if image is None else image.shape[0]
        rows = [self._row(state, image) for state in STATES]
        lengths = [row.shape[1] for row in rows]
        padded = [F.pad(row, (0, 0, 0, max(lengths) - row.shape[1])) for row in rows]
        # Filled on the device: copying them there would wait for it.
        device = self.deep.device
        ends = torch.stack([torch.full((), length - 1, device=device) for length in lengths])
        deep = self.deep.unsqueeze(1).expand(-1, 2 * num_images, -1, -1)
        if self.round_deep_to_half:
            deep = deep.half().to(self.deep.dtype)
        return PromptRows(torch.stack(padded, 1).flatten(0, 1), ends.repeat(num_images), deep)

    def _row(self, state: str, image: Float[Tensor, "B D"] | None) -> Float[Tensor, "B L D"]:
        num_images = 1 if image is None else image.shape[0]
        embedded: Tensor = getattr(self, f"embedded_{state}")
        tokens = embedded.expand(num_images, -1, -1)
        start, rest = tokens[:, :1], tokens[:, 1:]
        words = self.words[state].expand(num_images, -1, -1)
        if image is None:
            return torch.cat([start, words, rest], dim=1)
        if self.context is None:
            raise UsageError("static prompts take no image", key="prompt")
        parts = self.context(start, words, rest, image.to(words.dtype).unsqueeze(1))
        return torch.cat(parts, dim=1)


def check_learned(tensors: Mapping[str, Tensor], key: str = "checkpoint") -> None:
    """Refuse learned tensors that cannot be prompts.

    Args:
        tensors: Learned tensors by name.
        key: The key that named their file, for the error.

    Raises:
        UsageError: A tensor holds integers, NaN or infinity.
    """
    for name, value in tensors.items():
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UsageError(f"the prompts under {name} are {kind}, not real numbers", key=key)
        if not value.isfinite().all():
            raise UsageError(f"the prompts under {name} hold NaN or infinity", key=key)
