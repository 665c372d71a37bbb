"""The published checkpoints are read, checked against their tokens, and loaded."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crane.errors import UsageError
from crane.methods import Crane, is_official, prompts_from_official, read_checkpoint
from reference.build import StubText, build, furthest, official_names, stub_learner
from reference.generated import VOCABULARY, generated_clip_state_dict

FOLDER = Path(__file__).parent / "official"
CHECKPOINTS = sorted(FOLDER.glob("*.pth"))
WIDTH, NUM_WORDS = 768, 12
SENTENCES = {"pos": (49406, 14115, 269, 49407), "neg": (49406, 13568, 14115, 269, 49407)}
"""Start, (damaged,) object, full stop, end."""
whatever_its_clip = pytest.mark.filterwarnings("ignore:the checkpoint was made with other CLIP")
each_checkpoint = pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)


def raw(path: Path) -> dict[str, Tensor]:
    """A checkpoint as torch reads it."""
    return torch.load(path, map_location="cpu", weights_only=True)["prompt_learner"]


def embeddings(state: dict[str, Tensor]) -> Tensor:
    """A vocabulary, (49408, 768): the tokens that a checkpoint was made with, otherwise zeros."""
    rows = torch.zeros(VOCABULARY, WIDTH)
    for short, ids in SENTENCES.items():
        rows[ids[0]] = state[f"token_prefix_{short}"].flatten()
        rows[list(ids[1:])] = state[f"token_suffix_{short}"].reshape(-1, WIDTH)[: len(ids) - 1]
    return rows


@pytest.fixture(scope="module")
def model() -> Crane:
    """A Crane as wide as the published one, whose tokens are those of its checkpoints.

    Nine text blocks of zeros and one narrow vision block: what matters here are sizes and tokens.
    """
    narrow = generated_clip_state_dict(
        vision_layers=1, vision_width=64, text_layers=9, text_width=64, joint=64, vocabulary=1
    )
    clip = {name: torch.zeros(()).expand(widened(name, x)) for name, x in narrow.items()}
    clip["token_embedding.weight"] = embeddings(raw(CHECKPOINTS[0]))
    return build(["method=crane", "attention.num_blocks=1"], clip)


def widened(name: str, x: Tensor) -> tuple[int, ...]:
    """The shape of a tensor of a tower 64 wide, with the text's and the joint width at 768."""
    if name == "visual.proj":
        return 64, WIDTH
    if name.startswith("visual."):
        return tuple(x.shape)
    return tuple(size * WIDTH // 64 if size % 64 == 0 else size for size in x.shape)


def test_both_published_methods_are_here() -> None:
    assert [path.stem for path in CHECKPOINTS] == ["mvtec_cranep_epoch_5", "visa_crane_epoch_5"]


@each_checkpoint
def test_reading(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    assert checkpoint.config is None, "official checkpoints say nothing about their model"
    assert is_official(checkpoint.prompts)
    prompts, state = prompts_from_official(checkpoint.prompts), raw(path)
    assert set(prompts) == {"words.normal", "words.anomalous", "deep"}
    assert torch.equal(prompts["words.normal"], state["ctx_pos"][0, 0])
    assert torch.equal(prompts["words.anomalous"], state["ctx_neg"][0, 0])
    assert prompts["deep"].shape == (8, 4, WIDTH)
    for j, one in enumerate(prompts["deep"]):
        assert torch.equal(one, state[f"compound_prompts_text.{j}"])
    assert not torch.equal(prompts["words.normal"], prompts["words.anomalous"])
    assert sum(value.numel() for value in prompts.values()) == 43_008


@each_checkpoint
def test_loading_into_a_model(path: Path, model: Crane) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the tokens are those of the checkpoint
        model.load_learned(read_checkpoint(path).prompts)
    learned = official_names(model)
    for name, value in raw(path).items():
        if name in learned:
            assert furthest(learned[name], value) == 0.0, name
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 43_008


@each_checkpoint
def test_the_inner_state_dict_alone_is_read_too(path: Path) -> None:
    learner = stub_learner(StubText(WIDTH))  # without its embeddings nothing says which CLIP it was
    inner = {name: x for name, x in raw(path).items() if not name.startswith("token_")}
    learner.load(prompts_from_official(inner, into=learner))
    assert torch.equal(learner.words["normal"], inner["ctx_pos"][0, 0])


@each_checkpoint
def test_another_clip_is_warned_about(path: Path) -> None:
    learner = stub_learner(StubText(WIDTH, embedding=torch.full((WIDTH,), 0.5)))
    with pytest.warns(UserWarning, match="other CLIP weights .* check backbone"):
        prompts_from_official(read_checkpoint(path).prompts, into=learner)


@whatever_its_clip
@each_checkpoint
@pytest.mark.parametrize(
    ("words", "key"),
    [
        ({"normal": "object.", "anomalous": "broken object."}, "prompt.words.anomalous"),
        ({"normal": "thing.", "anomalous": "damaged object."}, "prompt.words.normal"),
        ({"normal": "object", "anomalous": "damaged object"}, "prompt.words.normal"),
    ],
)
def test_other_words_are_refused(path: Path, words: dict[str, str], key: str) -> None:
    learner = stub_learner(StubText(WIDTH), words=words)
    with pytest.raises(UsageError, match=key) as error:
        prompts_from_official(read_checkpoint(path).prompts, into=learner)
    short = "neg" if key.endswith("anomalous") else "pos"
    assert str(list(SENTENCES[short])) in str(error.value), "the tokens it was made with"


@whatever_its_clip
@each_checkpoint
def test_a_checkpoint_made_with_other_tokens_is_refused(path: Path) -> None:
    content: dict[str, Any] = copy.deepcopy(dict(read_checkpoint(path).prompts))
    content["prompt_learner"]["tokenized_prompts_neg"][0, 0, 13] = 343
    with pytest.raises(UsageError, match=r"prompt\.words\.anomalous"):
        prompts_from_official(content, into=stub_learner(StubText(WIDTH)))


@pytest.mark.parametrize("change", [{"num_words": 11}, {"num_deep": 5}, {"depth": 8}])
def test_other_sizes_are_refused(change: dict[str, int]) -> None:
    learner = stub_learner(StubText(WIDTH), **change)
    content = read_checkpoint(CHECKPOINTS[0]).prompts
    with (
        pytest.warns(UserWarning, match="other CLIP weights"),
        pytest.raises(UsageError, match="prompts have the shapes"),
    ):
        learner.load(prompts_from_official(content, into=learner))


def test_another_text_width_is_refused() -> None:
    learner = stub_learner(StubText(512))
    with pytest.raises(UsageError, match=r"prompts have the shapes .* use the backbone and"):
        learner.load(prompts_from_official(raw(CHECKPOINTS[0]), into=learner))
