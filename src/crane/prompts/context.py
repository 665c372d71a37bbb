"""How an image enters its own prompts (paper section 3.4): where its embedding stands in a row.

Each mode is one function of the parts of a row and the image as one more token. The row always
ends with the end token, so its position follows from the length.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Tokens = Float[Tensor, "B _ D"]
Context = Callable[[Tokens, Tokens, Tokens, Tokens], tuple[Tokens, ...]]


def replace_prefix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """The image takes the place of the first learned word."""
    return start, image, words[:, 1:], rest


def replace_suffix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """The image takes the place of the last learned word."""
    return start, words[:, :-1], image, rest


def pad_prefix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """The image stands right after the start token, before the learned words."""
    return start, image, words, rest


def pad_suffix(start: Tokens, words: Tokens, rest: Tokens, image: Tokens) -> tuple[Tokens, ...]:
    """The image stands right after the learned words: the default of the paper."""
    return start, words, image, rest
