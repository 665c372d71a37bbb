"""Export: a detector as one graph, in one file for ONNX Runtime, OpenVINO or torch.export.

The graph takes camera images and gives scores, maps and verdicts. Resizing is two matrix products
whose weights the graph computes from the size of the image. They round where PIL and torch round,
so the graph sees the same 8-bit pixels as `image_to_tensor`.
"""

import copy
import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from crane import __version__, schema
from crane.backbones import VisionTower
from crane.data.images import EXACT
from crane.errors import UsageError
from crane.files import replacing
from crane.methods import Detector
from crane.prediction.calibration import Threshold

if TYPE_CHECKING:
    from crane.prediction.anomaly_detector import AnomalyDetector

PIL_UNIT = float(1 << 22)
"""PIL's weights are whole multiples of 1 / PIL_UNIT."""


OUTPUTS = ("score", "map")
"""Outputs of the graph: (B,) and, at the size of the images, (B, H, W)."""
DECIDED = (*OUTPUTS, "is_anomalous", "mask")
"""With a threshold: whether the score reaches it, and the pixels that reach the pixel threshold."""


class OneGraph(nn.Module):
    """Resizing, towers, text, scoring, maps and verdict of a detector.

    Args:
        model: The detector; `exportable` has made sure that it is one graph.
        text: What `encode_classes` gave for the one class.
        image_size: Side of the square that the towers see, in pixels.
        resizer: One of `crane.data.images.RESIZERS`.
        threshold: What decides; None leaves the verdict out.
    """

    def __init__(
        self,
        model: Detector[Any, Any],
        text: Tensor | None,
        *,
        image_size: int,
        resizer: str,
        threshold: Threshold | None,
    ) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size
        self.resizer, self.threshold = resizer, threshold
        self.register_buffer("text", text)

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> dict[str, Tensor]:
        """Score camera images.

        Args:
            images: RGB, upright.

        Returns:
            `OUTPUTS`, or with a threshold `DECIDED`, in their order.
        """
        batch, height, width, _ = images.shape
        side = self.image_size
        pixels = resized_like(self.resizer, images.permute(0, 3, 1, 2), side) / 255
        dtype = next(self.model.parameters()).dtype
        features = self.model.encode(pixels.to(dtype))
        class_id = torch.zeros(batch, dtype=torch.int64, device=images.device)
        score, small = self.model.predict(features, self.text, class_id, (side, side))
        score, small = score.float(), small.float()
        rows, columns = (
            weights(length_of(small, side), length_of(small, to), side, to, "linear").float()
            for to in (height, width)
        )
        low, high = small.amin((1, 2), keepdim=True), small.amax((1, 2), keepdim=True)
        # Weights that sum to one up to rounding may leave the range by one float.
        map = (rows @ (small @ columns.T)).maximum(low).minimum(high)
        if self.threshold is None:
            return dict(zip(OUTPUTS, (score, map), strict=True))
        value = torch.full((), self.threshold.value, dtype=torch.float64, device=score.device)
        pixel = torch.full((), self.threshold.pixel_value, dtype=map.dtype, device=map.device)
        found = (score, map, score.double() >= value, map >= pixel)
        return dict(zip(DECIDED, found, strict=True))


def length_of(like: Tensor, length: Any) -> Float[Tensor, ""]:
    """A length as a number of the graph, in float64."""
    return torch.ones(length, dtype=torch.float64, device=like.device).sum()


def resized_like(
    resizer: str, images: UInt8[Tensor, "B 3 H W"], side: int
) -> Float[Tensor, "B 3 {side} {side}"]:
    """Resize as one of `crane.data.images.RESIZERS` does: first rows, then columns.

    Args:
        resizer: Its name.
        images: The images.
        side: Height and width of the result in pixels.

    Returns:
        Whole numbers from 0 to 255, float32. They equal PIL's; on processors without AVX2, torch's
        own may differ by one level.
    """
    kernel = "linear" if resizer == "pil_bilinear" else "cubic"
    planes = images.double()
    for axis in (3, 2):
        length = images.shape[axis]
        to = length_of(images, side)
        matrix = weights(length_of(images, length), to, length, side, kernel)
        unit = PIL_UNIT if resizer.startswith(EXACT) else _torch_unit(matrix)
        whole = (matrix.abs() * unit + 0.5).floor() * matrix.sign()
        product = planes @ whole.T if axis == 3 else whole @ planes
        planes = (product / unit + 0.5).floor().clamp(0, 255)
    return planes.float()


def weights(
    source: Float[Tensor, ""], target: Float[Tensor, ""], length: Any, to: Any, kernel: str
) -> Float[Tensor, "to length"]:
    """Weights of antialiased resizing along one axis, as PIL and torch compute them.

    Args:
        source: Pixels before, in float64.
        target: Pixels after, in float64.
        length: Pixels before.
        to: Pixels after.
        kernel: `cubic` (a = -0.5) or `linear`.

    >>> four, two = torch.tensor(4.0).double(), torch.tensor(2.0).double()
    >>> weights(four, two, 4, 2, "linear").mul(7).tolist()
    [[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]
    """
    scale = source / target
    centre = (torch.arange(to, dtype=torch.float64, device=source.device) + 0.5) * scale
    pixel = torch.arange(length, dtype=torch.float64, device=source.device) + 0.5
    x = ((pixel - centre.unsqueeze(1)) * (1 / scale.clamp(min=1.0))).abs()
    if kernel == "linear":
        raw = (1 - x).clamp(min=0)
    else:
        near = (1.5 * x - 2.5) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        raw = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return raw / raw.sum(dim=1, keepdim=True)


def _torch_unit(matrix: Float[Tensor, "S L"]) -> Float[Tensor, ""]:
    """Torch's weights fill 16 bits: the highest power of two that keeps the largest below 2^15."""
    powers = 2.0 ** torch.arange(23, dtype=torch.float64, device=matrix.device)
    fits = (matrix.amax() * powers + 0.5).floor() < (1 << 15)
    return (powers * fits).amax()


def _given(positions: Tensor, *_: object) -> Tensor:
    return positions


@contextmanager
def fixed_positions(model: Detector[Any, Any], image_size: int) -> Iterator[None]:
    """Resize position embeddings once, so that the graph holds them as constants."""
    towers = [part for part in model.modules() if isinstance(part, VisionTower)]
    for tower in towers:
        grid = tower.grid(image_size, image_size)
        positions = tower.positions_for(grid, getattr(model, "position_resize", "bilinear"))
        tower.positions_for = partial(_given, positions.detach())  # type: ignore[method-assign]
    try:
        yield
    finally:
        for tower in towers:
            del tower.positions_for


FORMATS = {"onnx": ".onnx", "torch_export": ".pt2", "openvino": ".xml"}
"""Format to the suffix of its file."""
OPSET = 18
LARGEST_ONNX = 2_000_000_000
"""Bytes of weights that one ONNX file holds; protocol buffers end at 2 GiB."""
NAMESPACE = "crane"
"""Where formats other than ONNX keep the facts."""


def export(
    detector: "AnomalyDetector",
    path: str | Path,
    *,
    precision: str = "fp32",
    size: Sequence[int] | None = None,
    calibration: Iterable[np.ndarray] | None = None,
) -> Path:
    """Write a detector as one graph from camera images to scores and maps; see docs/export.md.

    Args:
        detector: Loaded with `compile="none"` and `precision="32-true"`.
        path: The file; `.onnx`, `.pt2` (torch.export) or `.xml` (OpenVINO) chooses the format.
        precision: `fp32`, `fp16`, or for ONNX `int8`.
        size: Height and width of all images in pixels; None for a graph that takes any.
        calibration: Images (H, W, 3), uint8. With them int8 is static; without,
            ranges are measured anew for each image.

    Returns:
        The path.

    Raises:
        UsageError: The method is not one graph, or a value or a combination of them is wrong.
    """
    path = Path(path).expanduser()
    format = {suffix: name for name, suffix in FORMATS.items()}.get(path.suffix)
    if format is None:
        raise UsageError(f"{path.name} must end in .onnx, .pt2 or .xml", key="output")
    given = None if size is None else list(size)
    schema.check("export", {"precision": precision, "size": given})
    if precision == "int8" and format != "onnx":
        raise UsageError("int8 needs format=onnx, or choose precision=fp16", key="precision")
    if detector.options.compile not in ("none", False) or detector.options.precision != "32-true":
        raise UsageError("a model is exported as loaded with compile=none, precision=32-true")
    graph = _one_graph(detector, half=precision == "fp16" and format != "openvino")
    program = _traced(graph, given)
    facts = {**_facts(detector), "precision": precision, "size": given}
    if format == "torch_export":
        with replacing(path) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, part, extra_files={f"{NAMESPACE}.json": json.dumps(facts)})
        return path
    with tempfile.TemporaryDirectory() as folder:
        names = list(OUTPUTS if graph.threshold is None else DECIDED)
        raw = _as_onnx(program, names, Path(folder))
        if precision == "int8":
            raw = _in_int8(raw, None if calibration is None else _of_size(calibration, given))
        if format == "onnx":
            _write_onnx(raw, path, facts)
        else:
            _write_openvino(raw, path, facts, half=precision == "fp16")
    return path


def _one_graph(detector: "AnomalyDetector", *, half: bool) -> OneGraph:
    """The detector's graph on the CPU, without a text tower that nothing reads."""
    detector.model.check_exportable()
    if not detector.view.is_whole:
        raise UsageError(
            "an export is one graph and sees each image once, as a whole; use views=whole",
            key="views",
        )
    model, text = copy.copy(detector.model), detector._text
    model._modules = dict(model._modules)
    if text is not None:
        del model._modules["text"]
    if half or detector.options.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu", torch.float16 if half else None)
    return OneGraph(
        model,
        None if text is None else text.detach().cpu().clone(),
        image_size=detector.image_size,
        resizer=detector.resizer,
        threshold=detector.threshold,
    ).eval()


def _traced(graph: OneGraph, size: Sequence[int] | None) -> torch.export.ExportedProgram:
    images = torch.zeros(2, *(size or (96, 128)), 3, dtype=torch.uint8)
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    if size is None:
        free |= {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    with torch.no_grad(), fixed_positions(graph.model, graph.image_size):
        return torch.export.export(graph, (images,), dynamic_shapes={"images": free}, strict=False)


def _facts(detector: "AnomalyDetector") -> dict[str, Any]:
    """What the file says of itself."""
    config, threshold = detector.config, detector.threshold
    return {
        "method": type(detector.model).__name__ if config is None else config.method.name,
        "class_name": detector.class_name,
        "image_size": detector.image_size,
        **detector.origin,
        "threshold": None if threshold is None else asdict(threshold),
        "crane": __version__,
        "torch": torch.__version__,
    }


def _as_onnx(program: torch.export.ExportedProgram, names: Sequence[str], folder: Path) -> Path:
    """An ONNX file with constants folded; ONNX Runtime fuses the rest as it loads it."""
    import onnxscript.optimizer

    size = sum(
        value.nbytes for value in (*program.state_dict.values(), *program.constants.values())
    )
    if size > LARGEST_ONNX:
        raise UsageError(
            f"the model has {size / 1e9:.1f} GB of weights and an ONNX file holds 2; choose "
            "precision=fp16 or format=torch_export",
            key="precision",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what exporters say of their own parts
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            output_names=names,
            verbose=False,
        )
    assert made is not None
    limit = 1 << 40
    onnxscript.optimizer.fold_constants(made.model, input_size_limit=limit, output_size_limit=limit)
    onnxscript.optimizer.remove_unused_nodes(made.model)
    path = folder / "raw.onnx"
    made.save(path)
    return path


def _of_size(
    images: Iterable[np.ndarray], size: Sequence[int] | None
) -> Iterator[dict[str, np.ndarray]]:
    """Feeds of calibration, one image each; a graph of a fixed size takes no other."""
    for image in images:
        if size is not None and list(image.shape[:2]) != size:
            raise UsageError(
                f"calibration images must be {size[0]} x {size[1]} pixels like size, "
                f"not {image.shape[0]} x {image.shape[1]}",
                key="size",
            )
        yield {"images": image[None]}


def _in_int8(path: Path, feeds: Iterator[dict[str, np.ndarray]] | None) -> Path:
    """Quantise the towers' products with weights; scores, maps and resizing stay as they are."""
    import onnx
    from onnxruntime import quantization

    graph = onnx.load(path, load_external_data=False).graph
    matrices = {one.name for one in graph.initializer if len(one.dims) == 2}
    chosen = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices and "proj" not in node.input[1]
    ]
    made = path.with_name("int8.onnx")
    options = {"nodes_to_quantize": chosen, "per_channel": True}
    if feeds is None:
        quantization.quantize_dynamic(path, made, **options)
        return made

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
            self.feeds = feeds

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantization.quantize_static(path, made, Reader(feeds), **options)
    return made


def _write_onnx(raw: Path, path: Path, facts: Mapping[str, Any]) -> None:
    import onnx

    model = onnx.load(raw)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    onnx.helper.set_model_props(model, texts)
    with replacing(path) as part:
        onnx.save(model, part)


def _write_openvino(raw: Path, path: Path, facts: Mapping[str, Any], *, half: bool) -> None:
    import openvino

    # openvino.convert_model would report its use over the network, from a process of its own.
    model = openvino.Core().read_model(raw)
    model.set_rt_info(json.dumps(facts), [NAMESPACE])
    with replacing(path.with_suffix(".bin")) as weights, replacing(path) as part:
        openvino.save_model(model, part, compress_to_fp16=half)
        part.with_suffix(".bin").replace(weights)


class Difference(NamedTuple):
    """How far a file is from PyTorch on some images."""

    score: float
    """Largest difference of a score."""
    map: float
    """Largest difference of a pixel."""
    mean_map: float
    """Mean difference of pixels."""


def differences(
    detector: "AnomalyDetector", path: Path, images: Sequence[np.ndarray]
) -> Difference:
    """Compare a file that `export` wrote with its detector.

    Args:
        detector: The detector.
        path: The file.
        images: At least one image (H, W, 3), uint8.
    """
    exported = Exported(path)
    scores, maps = [], []
    for image in images:
        result = detector.predict(image)
        score, map, *_ = exported(image[None])
        scores.append(abs(float(score[0]) - result.score))
        maps.append(np.abs(map[0] - result.map))
    return Difference(
        max(scores),
        max(float(one.max()) for one in maps),
        float(np.mean([one.mean() for one in maps])),
    )


class Exported:
    """A file that `export` wrote, run by its own engine.

    Args:
        path: `.onnx`, `.pt2` or `.xml`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._run = {".onnx": self._onnx, ".pt2": self._torch, ".xml": self._openvino}[
            self.path.suffix
        ]()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs in their order for images (B, H, W, 3), uint8."""
        return list(self._run(images))

    def _onnx(self) -> Any:
        import onnxruntime

        session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})

    def _torch(self) -> Any:
        module = torch.export.load(self.path).module()

        def run(images: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                return [one.numpy() for one in module(torch.from_numpy(images)).values()]

        return run

    def _openvino(self) -> Any:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(self.path, "CPU", options)
        return lambda images: [value.copy() for value in compiled(images).values()]
