"""Files that only look like official checkpoints; real ones are read in `tests/parity`."""

import pytest
import torch

from crane.errors import UsageError
from crane.methods import is_official, prompts_from_official
from reference.build import StubText, stub_learner
from reference.generated import generated_prompts


def test_which_files_are_official() -> None:
    assert is_official({"prompt_learner": {}})
    assert is_official(generated_prompts(text_width=64))
    assert not is_official({"words.normal": torch.zeros(12, 64)})


def test_deep_sets_stand_in_the_order_of_their_numbers() -> None:
    state = generated_prompts(text_width=64, num_deep=11)
    shuffled = dict(sorted(state.items()))  # 0, 1, 10, 2, ...
    deep = prompts_from_official(shuffled)["deep"]
    assert torch.equal(deep[10], state["compound_prompts_text.10"])
    assert torch.equal(deep[2], state["compound_prompts_text.2"])


def test_a_checkpoint_may_have_no_deep_sets() -> None:
    learner = stub_learner(StubText(64), depth=1)
    learner.load(prompts_from_official(generated_prompts(text_width=64, num_deep=0), into=learner))
    assert learner.deep.shape == (0, 4, 64)


@pytest.mark.parametrize("content", [{"prompt_learner": 3}, {"prompt_learner": [1, 2]}])
def test_what_is_no_state_dict_is_refused(content: dict) -> None:
    with pytest.raises(UsageError, match=r"holds (int|list) under prompt_learner"):
        prompts_from_official(content)


@pytest.mark.parametrize("missing", ["ctx_pos", "ctx_neg"])
def test_missing_words_are_named(missing: str) -> None:
    state = generated_prompts(text_width=64)
    del state[missing]
    with pytest.raises(UsageError, match=f"no tensor of real numbers under {missing}"):
        prompts_from_official({"prompt_learner": state})


def test_words_are_compared_from_start_to_end_token() -> None:
    learner = stub_learner(StubText(64))
    state = generated_prompts(text_width=64)
    row = torch.zeros(77, dtype=torch.int32)
    row[:17] = torch.tensor([49406, *[343] * 12, 13568, 14115, 269, 49407])
    state["tokenized_prompts_neg"] = row
    assert set(prompts_from_official(state, into=learner)) == set(learner.state_dict())
    state["tokenized_prompts_neg"] = row.roll(-1)
    with pytest.raises(UsageError, match=r"tokens \[343.*change prompt\.words\.anomalous"):
        prompts_from_official(state, into=learner)


def test_words_of_integers_are_refused() -> None:
    state = generated_prompts(text_width=64)
    state["ctx_neg"] = state["ctx_neg"].int()
    with pytest.raises(UsageError, match="no tensor of real numbers under ctx_neg"):
        prompts_from_official(state)
