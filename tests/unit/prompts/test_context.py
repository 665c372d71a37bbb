"""Where the image stands in its own prompts, in each mode, as in the slow reference."""

import pytest
import torch

from crane import prompts
from crane.prompts import Context
from reference.crane_slow import CONTEXT_MODES, sentence

IMAGE = 9.0
MODES = {mode: getattr(prompts, mode) for mode in CONTEXT_MODES if mode != "none"}
PLACES = {
    "replace_prefix": [0, IMAGE, 2, 3, 50, 51],
    "replace_suffix": [0, 1, 2, IMAGE, 50, 51],
    "pad_prefix": [0, IMAGE, 1, 2, 3, 50, 51],
    "pad_suffix": [0, 1, 2, 3, IMAGE, 50, 51],
}
"""Start 0, words 1 to 3, the rest of the sentence 50 and 51."""


@pytest.mark.parametrize("mode", MODES)
def test_where_the_image_stands(mode: str) -> None:
    context: Context = MODES[mode]
    parts = ([0.0], [1.0, 2.0, 3.0], [50.0, 51.0], [IMAGE])
    row = torch.cat(context(*(torch.tensor(part).view(1, -1, 1) for part in parts)), dim=1)
    assert row.flatten().tolist() == PLACES[mode]


@pytest.mark.parametrize("mode", MODES)
def test_the_slow_reference_agrees(mode: str) -> None:
    vocabulary = torch.zeros(49408, 1)
    vocabulary[[49406, 14115, 269, 49407], 0] = torch.tensor([0.0, 50.0, 51.0, 52.0])
    state = {"token_embedding.weight": vocabulary, "positional_embedding": torch.zeros(77, 1)}
    words = {"ctx_pos": torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1)}
    row, end = sentence(state, words, "ctx_pos", torch.tensor([IMAGE]), mode)
    assert row[: end + 1].flatten().tolist() == [*PLACES[mode], 52.0]
