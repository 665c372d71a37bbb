"""The arithmetic of docs/cost.md and of the benchmark `methods`, against what torch counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._arithmetic import Cost, Work, cost_of, lengths
from benchmarks.methods import METHODS, built, config_of
from crane.cli.validation import options
from crane.config import conf_dir
from crane.gate import build

pytestmark = pytest.mark.long

EVERY = (*METHODS, "crane_plus")
aten = torch.ops.aten
MATRICES = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.convolution: (0, 1)}
MATRICES |= {aten._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2)}


class MovedCounter(TorchDispatchMode):
    """Counts the numbers that products of matrices read and write; expanded ones count once."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        places = MATRICES.get(func.overloadpacket)
        if places is not None:
            first = out if isinstance(out, Tensor) else out[0]
            for one in (*(args[place] for place in places), first):
                strides = zip(one.shape, one.stride(), strict=True)
                self.numbers += math.prod(size for size, stride in strides if stride)
        return out


def counted(work: Any) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.fixture(scope="module", params=EVERY)
def case(request) -> tuple[str, Any, Tensor, Cost]:
    model, image = built(request.param, small=True, device="cpu")
    config = config_of(request.param, small=True)
    return request.param, model, image, cost_of(request.param, config)


def test_the_parts_of_a_forward_are_those_that_torch_counts(case) -> None:
    _, model, image, cost = case
    size, class_id = (image.shape[-2], image.shape[-1]), torch.zeros(1, dtype=torch.int64)
    features = model.encode(image)
    text = model.encode_classes(["object"])
    parts = {
        "encode": (cost.encode, lambda: model.encode(image)),
        "head": (cost.head, lambda: model.predict(features, text, class_id, size)),
        "text": (cost.text, lambda: model.encode_classes(["object"])),
    }
    for name, (stated, work) in parts.items():
        with torch.no_grad():
            assert stated.flops == pytest.approx(counted(work), rel=1e-3), name


def test_numbers_moved_are_those_of_the_products(case) -> None:
    _, model, image, cost = case
    with torch.no_grad(), MovedCounter() as counter:
        model.encode(image)
    stated = cost.encode.moved + cost.encode.weights
    assert stated == pytest.approx(counter.numbers, rel=0.02)


def test_the_cache_keeps_as_many_numbers(case) -> None:
    _, model, image, cost = case
    assert sum(one.numel() for one in model.to_arrays(model.encode(image))) == cost.cached


def test_a_training_step_is_what_torch_counts(case) -> None:
    method, model, image, cost = case
    assert model.is_trainable == (cost.step is not None)
    if cost.step is None:
        return
    loss = build(config_of(method, small=True).loss, "loss")
    with torch.no_grad():
        features, text = model.encode(image), model.training_text(["object"])
    truth = {
        "mask": torch.ones(image.shape[0], *image.shape[2:], dtype=torch.int32),
        "label": torch.ones(1, dtype=torch.int64),
        "has_mask": torch.tensor([True]),
        "class_id": torch.zeros(1, dtype=torch.int64),
    }
    generator = torch.Generator().manual_seed(0)
    found = counted(lambda: model.losses(loss, features, text, truth, generator).total.backward())
    assert (cost.step + cost.step_text).flops == pytest.approx(found, rel=0.01)


def test_rows_of_text_are_those_of_the_model(case) -> None:
    _, model, _, cost = case
    if hasattr(model, "ensemble"):
        sentences = model.ensemble.sentences("object")
        ids = [[len(model.text.tokenize(one)) for one in state] for state in sentences]
    else:
        rows, ends, _ = model.trained(None)
        ids = [(ends + 1).tolist()]
        assert rows.shape[:2] == cost.rows[0]
    assert [(len(state), max(state)) for state in ids] == list(cost.rows)


def test_the_tower_of_the_paper_on_no_device() -> None:
    """ViT-L/14 at 518 px, without memory for it."""
    from open_clip import CLIP, get_model_config, get_tokenizer

    from crane.backbones import Clip
    from crane.methods import Crane, VisionEncoder

    config = config_of("crane", small=False)
    with torch.device("meta"):
        clip = CLIP(**get_model_config("ViT-L-14-336"), quick_gelu=True)
    towers = Clip(clip, get_tokenizer("ViT-L-14-336"))
    vision = VisionEncoder(towers.vision, build(config.attention, "attention"))
    model = Crane(
        vision, towers.text, build(config.prompt, "prompt")(towers.text), build(config.scoring, "s")
    ).to("meta")
    image = torch.empty(1, 3, 518, 518, device="meta")
    cost = cost_of("crane", config)
    with torch.no_grad():
        found = counted(lambda: model.encode(image))
        assert cost.encode.flops == pytest.approx(found, rel=1e-3)
        assert sum(one.numel() for one in model.to_arrays(model.encode(image))) == cost.cached


def test_every_method_is_measured() -> None:
    """Crane+ needs a guide, and has rows of its own in the benchmark `forward`."""
    assert set(EVERY) == set(options(conf_dir() / "method"))


def test_lengths_count_start_and_end() -> None:
    assert lengths(["object.", "damaged object."]) == [4, 5]
    assert Work(1, 2, 3, 4).flops == 3
