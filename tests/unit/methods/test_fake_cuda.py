"""Every method on fake CUDA tensors, which have devices, types and shapes but no values.

A tensor on the wrong device, a type that autocast breaks and any wait of the host for the GPU (a
value read back, a shape that depends on values, a blocking copy) raise here, without a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from compositions import composed_once
from crane.backbones import TextTower
from crane.cli.validation import options
from crane.config import conf_dir
from crane.data import CraneDataModule
from crane.gate import build
from crane.methods import Crane, anovl, build_model, compile_towers
from crane.methods.adaclip import AdaClip
from crane.methods.anovl import views_of
from crane.metrics import Evaluation
from crane.prompts.ensembles import PromptEnsemble
from crane.training import CraneModule

pytestmark = pytest.mark.long

SIZE, BATCH = 56, 2
CLASSES = ("bolt",)
CUDA = torch.device("cuda", 0)
SHALLOW = (
    "backbone=tiny",
    "backbone.model.architecture.vision_cfg.layers=4",
    "backbone.model.architecture.text_cfg.layers=2",
    "backbone.num_attention_blocks=2",
    "backbone.taps=[2,4]",
    f"image_size={SIZE}",
)
PROMPTS = ("prompt.depth=2",)
MORE = {
    "crane": PROMPTS,
    "crane_plus": ("guide=tiny", *PROMPTS),
    "anomalyclip": PROMPTS,
    "adaclip": ("method.detector.depth=2", "method.detector.num_clusters=2"),
    "anovl": ("method.detector.num_steps=0",),  # a step needs autograd's threads, hence a device
}
METHODS = options(conf_dir() / "method")

COPIES = {
    "anovl": "its test-time steps draw first weights and noise on the host, to be the same on "
    "every device; the views' matrices are written on the host too",
}
"""Methods that copy to the device by design, with the reason. AdaCLIP's k-means, which runs on the
host as published, stands outside: `fake_cuda` gives its labels."""


class NoWaiting(TorchDispatchMode):
    """Refuses copies between host and device that hold the host up."""

    def __init__(self, *, to_device: bool) -> None:
        super().__init__()
        self.to_device = to_device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
            waits = not kwargs.get("non_blocking", False) and True not in args[2:]
            crossed = source.device.type != out.device.type
            if crossed and waits and (self.to_device or out.device.type == "cpu"):
                raise AssertionError(f"the host waits for a copy to {out.device}")
        return out


def on_cuda(model: nn.Module) -> None:
    """Replace parameters and buffers, which is what `.to` moves, by fake ones on the GPU."""
    moved: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is None:
                    continue
                if id(value) not in moved:
                    fake: Tensor = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                    if isinstance(value, nn.Parameter):
                        fake = nn.Parameter(fake, requires_grad=value.requires_grad)
                    moved[id(value)] = fake
                held[name] = moved[id(value)]


@contextmanager
def fake_cuda(precision: str = "32-true") -> Iterator[None]:
    """Fake tensors; what the host computes for itself (words, k-means) is given to it.

    Autocast is set by hand, since `torch.autocast` turns itself off without a GPU.
    """

    def words(tower: TextTower, sentence: str) -> Tensor:
        return torch.empty(8 + len(sentence.split()), dtype=torch.int64)

    def clusters(model: AdaClip, rows: Tensor, number: int) -> Tensor:
        assert rows.device == CUDA
        with unset_fake_temporarily():
            return torch.arange(len(rows)) % model.num_clusters

    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextTower, "tokenize", words)
        patch.setattr(PromptEnsemble, "sentences", lambda *_: (["a", "a b"], ["c", "c d"]))
        patch.setattr(AdaClip, "cluster", clusters)
        torch.set_autocast_enabled("cuda", precision == "bf16-mixed")
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])


@pytest.fixture(autouse=True)
def _no_shape_checks() -> Iterator[None]:
    """Shapes are checked elsewhere; a fake tensor is slow to check, and a graph breaks on it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def config_of(method: str, *overrides: str) -> Any:
    more = MORE.get(method, ())
    return composed_once("train", f"method={method}", *SHALLOW, *more, *overrides)


def truth_of(has_mask: list[bool]) -> dict[str, Tensor]:
    """A batch as Lightning hands it over: what the host decides by is real and on the host."""
    with unset_fake_temporarily():
        kept = {
            "has_mask": torch.tensor(has_mask),
            "class_id": torch.zeros(BATCH, dtype=torch.int64),
        }
    mask = torch.empty(BATCH, SIZE, SIZE, dtype=torch.int32, device=CUDA)
    label, index = (torch.empty(BATCH, dtype=torch.int64, device=CUDA) for _ in range(2))
    return {"mask": mask, "label": label, "index": index, **kept}


def features_of(model: Any, images: Tensor) -> Any:
    """The features of a batch, by way of the cache's arrays."""
    features = model.encode(images)
    arrays = model.to_arrays(features)
    again = model.from_arrays(*arrays, (SIZE, SIZE))
    for one, other in zip(features, again, strict=True):
        if isinstance(one, Tensor):
            assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, CUDA)
        else:
            assert one == other
    return again


VARIANTS = [pytest.param(method, (), id=method) for method in METHODS] + [
    pytest.param("crane", ("prompt.context_in_testing=true",), id="text of each image"),
]


@pytest.mark.parametrize(("method", "overrides"), VARIANTS)
def test_a_method_runs_on_a_gpu_without_waiting_for_it(method, overrides, monkeypatch):
    config = config_of(method, *overrides)
    model = build_model(config)
    monkeypatch.setattr(anovl, "views_of", lambda images: views_of(images)[::7])
    with fake_cuda():
        on_cuda(model)
    for precision in ("32-true", "bf16-mixed"):
        evaluation = build(config.metrics, "metrics")(class_names=CLASSES)
        with fake_cuda(precision):
            evaluation.to(CUDA)
            run_test_step(model, evaluation, method)
            if model.is_trainable:
                run_training_steps(model, config, method, monkeypatch)


def run_test_step(model: Any, evaluation: nn.Module, method: str) -> None:
    images, truth = torch.empty(BATCH, 3, SIZE, SIZE, device=CUDA), truth_of([True, False])
    with torch.no_grad():
        text = model.encode_classes(CLASSES)
        with NoWaiting(to_device=method not in COPIES):
            features = features_of(model, images)
            score, map = model.predict(features, text, truth["class_id"], (SIZE, SIZE))
            evaluation.update(score.float(), map.float(), **truth, labelled=True)
    assert (score.device, score.shape) == (CUDA, (BATCH,))
    assert (map.device, map.shape) == (CUDA, (BATCH, SIZE, SIZE))
    assert {score.dtype, map.dtype} <= {torch.float32, torch.float64}


def backward(loss: Tensor) -> dict[int, Tensor]:
    """Gradients of leaves by their id: the graph walked node by node.

    Autograd's own engine gives each device a thread, and there is no device.
    """
    order: list[Any] = []
    seen, waiting = set(), [(loss.grad_fn, False)]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            waiting += [(node, True), *((after, False) for after, _ in node.next_functions)]
    into: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for node in reversed(order):
            given = into.pop(node, {})
            if hasattr(node, "variable"):
                found[id(node.variable)] = given[0]
                continue
            out = node(*(given.get(place) for place in range(len(node._input_metadata))))
            outs = out if isinstance(out, tuple) else (out,)
            for (after, place), gradient in zip(node.next_functions, outs, strict=True):
                if after is not None and gradient is not None:
                    like, held = after._input_metadata[place], into.setdefault(after, {})
                    gradient = gradient.sum_to_size(like.shape).to(like.dtype)
                    held[place] = held[place] + gradient if place in held else gradient
    return found


def module_of(model: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> CraneModule:
    """The module of a training, without a trainer; what it logs has to be on the GPU."""

    def logged(_: CraneModule, values: dict[str, Tensor], **__: Any) -> None:
        assert all(value.device == CUDA and not value.requires_grad for value in values.values())

    loss, optimizer = build(config.loss, "loss"), build(config.optimizer, "optimizer")
    module = CraneModule(model, loss, optimizer, Evaluation, seed=0, config={})
    monkeypatch.setattr(CraneModule, "log_dict", logged)
    monkeypatch.setattr(CraneModule, "_generator", lambda _: torch.Generator())
    return module


def batch_of(has_mask: list[bool]) -> Any:
    """A batch as the loader gives it, moved by the data module."""
    with unset_fake_temporarily():
        kept = {"has_mask": torch.tensor(has_mask), "class_id": torch.zeros(BATCH).long()}
    batch = {
        "image": torch.empty(BATCH, 3, SIZE, SIZE),
        "mask": torch.empty(BATCH, SIZE, SIZE, dtype=torch.int32),
        "label": torch.empty(BATCH, dtype=torch.int64),
        "index": torch.empty(BATCH, dtype=torch.int64),
        **kept,
    }
    data = CraneDataModule.__new__(CraneDataModule)
    moved = data.transfer_batch_to_device(batch, CUDA, 0)
    places = {name: value.device.type for name, value in moved.items()}
    on_gpu = dict.fromkeys(("image", "mask", "label", "index"), "cuda")
    assert places == {**on_gpu, "has_mask": "cpu", "class_id": "cpu"}
    return moved


def run_training_steps(
    model: Any, config: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(model, config, monkeypatch)
    optimizer = module._build_optimizer()
    module._training_text = model.training_text(CLASSES)
    features_of(model, torch.empty(BATCH, 3, SIZE, SIZE, device=CUDA))
    learned = {id(one): one for one in model.trained.parameters() if one.requires_grad}
    for has_mask in ([True, True], [True, False], [False, False]):
        # The host draws it; with context, each image has text of its own.
        monkeypatch.setattr(Crane, "uses_context", lambda *_, drawn=has_mask[0]: drawn)
        with NoWaiting(to_device=True):
            loss = module.training_step(batch_of(has_mask), 0)
            assert (loss.device, loss.dtype) == (CUDA, torch.float32)
            gradients = backward(loss)
            assert gradients.keys() <= learned.keys()
            for number, gradient in gradients.items():
                own = learned[number]
                assert (gradient.shape, gradient.dtype, gradient.device) == (
                    *(own.shape, own.dtype, CUDA),
                )
                own.grad = gradient
            optimizer.step()
        if any(has_mask):
            assert gradients.keys() == learned.keys()


@pytest.mark.parametrize("metrics", options(conf_dir() / "metrics"))
def test_metrics_count_on_a_gpu_without_waiting_for_it(metrics):
    evaluation = build(composed_once("train", f"metrics={metrics}").metrics, "metrics")(
        class_names=CLASSES
    )
    with fake_cuda():
        evaluation.to(CUDA)
        truth = truth_of([True, False])
        score, map = torch.empty(BATCH, device=CUDA), torch.empty(BATCH, SIZE, SIZE, device=CUDA)
        with NoWaiting(to_device=True):
            evaluation.update(score, map, **truth, labelled=True)


def test_what_would_wait_or_mix_devices_is_found():
    with fake_cuda():
        one = torch.ones(3, device=CUDA)
        for wrong in (
            lambda: one + torch.ones(3),
            lambda: bool((one > 0).any()),
            lambda: one[one > 0],
            lambda: one.tolist(),
        ):
            with pytest.raises(RuntimeError):
                wrong()
        for copy in (lambda: one.cpu(), lambda: torch.zeros(3).to(CUDA)):
            with NoWaiting(to_device=True), pytest.raises(AssertionError, match="host waits"):
                copy()
        with NoWaiting(to_device=True):
            torch.zeros(3).to(CUDA, non_blocking=True)


@pytest.mark.parametrize("method", METHODS)
def test_the_towers_compile_in_one_graph(method):
    model = build_model(config_of(method))
    compiled: list[str] = []
    compile_towers(model, "default")
    for module in model.modules():
        if module._compiled_call_impl is not None:
            compiled.append(type(module).__name__)
            module.compile(fullgraph=True, backend="eager")
    assert set(compiled) in ({"VisionEncoder", "TextTower"}, {"Block", "TextTower"})
    torch._dynamo.reset()
    with torch.no_grad():
        model.encode(torch.rand(1, 3, SIZE, SIZE))
        model.text(torch.rand(2, 7, model.text.width), torch.tensor([5, 6]), None)
    assert torch._dynamo.utils.counters["graph_break"] == {}
