"""The only trained parameters: words before "object" and "damaged object", and deep tokens."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.errors import UsageError
from crane.prompts.context import Context

STATES = ("normal", "anomalous")
"""The two sentences, in the order of the image labels."""


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
        """The most tokens a sentence can have."""

    @property
    def joint_width(self) -> int:
        """Width of an embedded sentence."""

    def tokenize(self, sentence: str) -> Int[Tensor, " L"]:
        """Token ids from the start token to the end token."""


class PromptRows(NamedTuple):
    """Sentences as rows of token embeddings: normal and anomalous in turn for each image."""

    rows: Float[Tensor, "R L D"]
    ends: Int[Tensor, " R"]
    deep: Float[Tensor, "J R K D"]


class PromptLearner(nn.Module):
    """Learned prompts `[start] c_1 … c_n "object" "." [end]`, likewise for "damaged object".

    Args:
        text: The text tower that will read the rows. Only looked at, not kept.
        words: The sentence for each state, `normal` and `anomalous`.
        num_words: Learned words before each sentence (paper: 12).
        num_deep: Learned tokens of each deep set (paper: 4).
        depth: Text blocks whose input holds learned tokens, the first included (paper: 9, so 8
            deep sets).
        init_std: Standard deviation of the initial values.
        context: How the image enters the row, a function of `crane.prompts.context`; None for
            static prompts.
        context_in_training: Probability that a training step uses the image context.
        context_in_testing: Whether testing and predicting use it. The published evaluation does
            not (spec, "Text").
        round_deep_to_half: Round deep tokens to float16 before use, whatever the precision, as the
            official code does.

    Raises:
        UsageError: The sizes do not fit the text tower.
    """

    def __init__(
        self,
        text: TextEncoder,
        *,
        words: Mapping[str, str],
        num_words: int,
        num_deep: int,
        depth: int,
        init_std: float,
        context: Context | None,
        context_in_training: float,
        context_in_testing: bool,
        round_deep_to_half: bool,
    ) -> None:
        super().__init__()
        self.context = context
        self.context_in_training = float(context_in_training)
        self.context_in_testing = bool(context_in_testing)
        self.round_deep_to_half = bool(round_deep_to_half)
        self._check(text, words, num_words, num_deep, depth)
        self.words = nn.ParameterDict(
            {s: nn.Parameter(init_std * torch.randn(num_words, text.width)) for s in STATES}
        )
        deep = init_std * torch.randn(depth - 1, num_deep, text.width)
        # DDP refuses trained parameters that no loss depends on, as without deep sets.
        self.deep = nn.Parameter(deep, requires_grad=depth > 1)
        for state in STATES:
            ids = text.tokenize(words[state])
            self.register_buffer(f"ids_{state}", ids, persistent=False)
            with torch.no_grad():
                embedded = text.token_embedding(ids.to(text.token_embedding.weight.device))
            self.register_buffer(f"embedded_{state}", embedded.clone(), persistent=False)

    def _check(
        self,
        text: TextEncoder,
        words: Mapping[str, str],
        num_words: int,
        num_deep: int,
        depth: int,
    ) -> None:
        if set(words) != set(STATES):
            raise UsageError(
                "one sentence for each of normal, anomalous", dict(words), key="prompt.words"
            )
        if not 1 <= depth <= len(text.blocks):
            raise UsageError(
                f"a depth of 1 to {len(text.blocks)}, the blocks of the text tower",
                depth,
                key="prompt.depth",
            )
        if num_words < 1 or num_deep < 1:
            raise UsageError(
                "at least one learned token",
                (num_words, num_deep),
                key="prompt.num_words or prompt.num_deep",
            )
        lengths = [len(text.tokenize(words[state])) + num_words for state in STATES]
        if max(lengths) + 1 > text.max_length:
            raise UsageError(
                f"prompts of at most {text.max_length} tokens, the image's among them",
                max(lengths) + 1,
                key="prompt.num_words",
            )
        if num_deep > min(lengths) - 2:
            raise UsageError(
                f"deep sets of at most {min(lengths) - 2} tokens, between start and end",
                num_deep,
                key="prompt.num_deep",
            )
        if not 0.0 <= self.context_in_training <= 1.0:
            raise UsageError(
                "a probability from 0 to 1",
                self.context_in_training,
                key="prompt.context_in_training",
            )
        if self.context is None and (self.context_in_training or self.context_in_testing):
            raise UsageError(
                "context_in_training 0 and context_in_testing false, as static prompts have none",
                (self.context_in_training, self.context_in_testing),
                key="prompt",
                hint="or choose how the image enters, such as prompt=pad_suffix",
            )
        if self.context is not None and text.width != text.joint_width:
            raise UsageError(
                "a backbone whose joint width equals its text width, since the image's embedding "
                "becomes a word of the prompt",
                f"joint width {text.joint_width}, text width {text.width}",
                key="backbone",
                hint="or take prompt=none (static prompts)",
            )

    def load(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take learned values over.

        Raises:
            UsageError: They were learned for other sizes.
        """
        wanted = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        came = {name: tuple(value.shape) for name, value in state_dict.items()}
        if came != wanted:
            raise UsageError(
                f"prompts of sizes {wanted}",
                f"a checkpoint with {came}",
                key="checkpoint",
                hint="its backbone and prompt settings must be those of this configuration",
            )
        self.load_state_dict(dict(state_dict))

    def forward(self, image: Float[Tensor, "B D"] | None) -> PromptRows:
        """Rows for each image, or one pair of static rows.

        Args:
            image: Unit-norm global embeddings g; None for static prompts.

        Returns:
            2 B rows (2 where static), normal and anomalous in turn, padded to the longest: at most
            a token after an end, where attention is causal and nothing is read.
        """
        num_images = 1 if image is None else len(image)
        rows = [self._row(state, image) for state in STATES]
        lengths = [row.shape[1] for row in rows]
        padded = [F.pad(row, (0, 0, 0, max(lengths) - row.shape[1])) for row in rows]
        # Filled in where they are needed: a copy from here would wait for the device.
        device = self.deep.device
        ends = torch.stack([torch.full((), length - 1, device=device) for length in lengths])
        deep = self.deep.unsqueeze(1).expand(-1, 2 * num_images, -1, -1)
        if self.round_deep_to_half:
            deep = deep.half().to(self.deep.dtype)
        return PromptRows(torch.stack(padded, 1).flatten(0, 1), ends.repeat(num_images), deep)

    def _row(self, state: str, image: Float[Tensor, "B D"] | None) -> Float[Tensor, "B L D"]:
        num_images = 1 if image is None else len(image)
        embedded: Tensor = getattr(self, f"embedded_{state}")
        tokens = embedded.expand(num_images, -1, -1)
        start, rest = tokens[:, :1], tokens[:, 1:]
        words = self.words[state].expand(num_images, -1, -1)
        if image is None:
            return torch.cat([start, words, rest], dim=1)
        if self.context is None:
            raise UsageError("a context for image embeddings", self.context, key="prompt")
        parts = self.context(start, words, rest, image.to(words.dtype).unsqueeze(1))
        return torch.cat(parts, dim=1)
