"""`python -m benchmarks cost`: what methods cost on paper; writes docs/cost.md.

No number here is measured. Operations and bytes are those of `_arithmetic`, which tests compare
with models; hours follow from the data sheets of GPUs and from the assumptions below.
"""

from functools import cache
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from benchmarks._arithmetic import Cost, Work, cost_of, sizes_of
from benchmarks._page import table
from benchmarks.methods import config_of
from crane.config import compose
from crane.gate import build
from crane.reproduce import Plan, Planner, estimate, expand, read_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cost.md"
RECIPE = ROOT / "experiments" / "table1_zero_shot"
METHODS = ("clip", "winclip", "anovl", "vand", "anomalyclip", "adaclip", "crane", "crane_plus")


class Gpu(NamedTuple):
    """Dense peaks of NVIDIA's data sheets."""

    bfloat16: float
    """Operations per second in bfloat16."""
    float32: float
    """Operations per second in float32, without TF32."""
    bandwidth: float
    """Bytes of memory per second."""


GPUS = {
    "H100": Gpu(989e12, 67e12, 3.35e12),  # SXM5, 80 GB
    "A100": Gpu(312e12, 19.5e12, 2.04e12),  # SXM4, 80 GB
}
BYTES = {"bfloat16": 2, "float32": 4}
UTILISATION = 0.4
"""Share of both peaks that is assumed to be reached."""
BATCH = 8
"""Images of a batch; of a training, too."""
LOADED = 30.0
"""Images that a core opens and resizes in a second; benchmarks/loading.md has 27 to 46."""
CORES = 16
"""Cores beside a GPU."""
READ = 2e9
"""Bytes that a local disk reads in a second."""
PHOTO = 0.5e6
"""Bytes of an image file."""
SWEEP = (100, 5, 1725, 2162)
"""Jobs, epochs, images of MVTec AD and of VisA."""
MANY = 10_000_000
ROW = 100
"""Bytes of an image's row in scores/*.parquet, at most."""


@cache
def cost(method: str) -> Cost:
    """The arithmetic of a method as published."""
    return cost_of(method, config_of(method, small=False))


def seconds(work: Work, gpu: str, precision: str, batch: int = BATCH) -> tuple[float, str]:
    """Seconds of an image's work in a batch, and what limits it."""
    peaks = GPUS[gpu]
    arithmetic = work.flops / (UTILISATION * getattr(peaks, precision))
    moved = BYTES[precision] * (work.moved + work.weights / batch)
    memory = moved / (UTILISATION * peaks.bandwidth)
    return max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory"


def hours(work: Work, gpu: str, precision: str, num: int) -> float:
    """GPU-hours of the work on a number of images."""
    return num * seconds(work, gpu, precision)[0] / 3600


def parts() -> str:
    """Operations of one image, by method."""
    columns = ["method", "backbone", "px", "encode", "head", "text", "sentences x tokens", "step"]
    rows = []
    for method in METHODS:
        config, one = config_of(method, small=False), cost(method)
        text = " + ".join(f"{rows} x {length}" for rows, length in one.rows)
        each = f"{text} an image" if method == "adaclip" else text
        step = "-"
        if one.step is not None:
            step = f"{(one.step.flops + one.step_text.flops / BATCH) / 1e9:.2f}"
        rows.append(
            [method, config.backbone.model.architecture, str(sizes_of(config).pixels)]
            + [f"{work.flops / 1e9:.2f}" for work in (one.encode, one.head, one.text)]
            + [each, step]
        )
    return table(columns, rows)


def traffic() -> str:
    """Bytes, operations per byte and cache size of one image, by method."""
    rows = []
    for method in METHODS:
        one = cost(method)
        work = one.encode + one.head
        moved = BYTES["bfloat16"] * (work.moved + work.weights / BATCH)
        limits = [seconds(work, "H100", precision)[1] for precision in BYTES]
        rows.append(
            [
                method,
                f"{2 * work.moved / 1000000.0:.0f}",
                f"{2 * work.weights / 1000000.0:.0f}",
                f"{work.flops / moved:.0f}",
                *limits,
                f"{4 * one.cached / 1000000.0:.2f}",
            ]
        )
    columns = ["method", "activations, MB", "weights, MB", "operations / byte"]
    columns += ["limit, bfloat16", "limit, float32", "cache, MB"]
    return table(columns, rows)


def speeds() -> str:
    """Images per second by method and GPU, and the cores that feed it."""
    kinds = [(gpu, precision) for gpu in GPUS for precision in BYTES]
    rows = []
    for method in METHODS:
        work = cost(method).encode + cost(method).head
        rates = [1 / seconds(work, *kind)[0] for kind in kinds]
        rows.append([method, *(f"{rate:.1f}" for rate in rates), f"{rates[0] / LOADED:.1f}"])
    columns = ["method", *(f"{gpu}, {precision}" for gpu, precision in kinds)]
    return table([*columns, "cores for the first"], rows)


class Runs(NamedTuple):
    """Images of a method's trainings and tests in a plan."""

    trainings: int
    trained: int
    """In all epochs."""
    encoded: int
    """Of the sources: once a training, or every epoch where mosaics make new images."""
    kept: int
    """Of the sources, in the cache."""
    tested: int
    classes: int
    """Classes of all tests."""


def runs_of(method: str, plan: Plan) -> Runs:
    """What a plan does with a method."""
    typed = f"method={method}"
    tests = [test for test in plan.distinct_tests if typed in test.overrides]
    trainings = [training for training in plan.trainings if typed in training.overrides]
    new = [training for training in trainings if training.setting.config.data.mosaic_rate]
    kept = sum(one.num_images // one.num_epochs for one in trainings if one not in new)
    return Runs(
        len(trainings),
        sum(one.num_images for one in trainings),
        kept + sum(one.num_images for one in new),
        kept,
        sum(test.num_images for test in tests),
        sum(test.dataset.num_classes for test in tests),
    )


def hours_of(one: Cost, runs: Runs, gpu: str, precision: str) -> float:
    """GPU-hours of a method's runs."""
    found = hours(one.encode, gpu, precision, runs.tested + runs.encoded)
    found += hours(one.head, gpu, precision, runs.tested)
    found += seconds(one.text, gpu, precision, 1)[0] * runs.classes / 3600
    found += hours(one.step or Work(), gpu, precision, runs.trained)
    return found + hours(one.step_text, gpu, precision, runs.trained // BATCH)


def table_1(plan: Plan) -> str:
    """GPU-hours and disk of the recipe's rows, by method."""
    rows, totals = [], [0.0] * 8
    for method in METHODS:
        one, runs = cost(method), runs_of(method, plan)
        spent = [hours_of(one, runs, gpu, precision) for gpu in GPUS for precision in BYTES]
        numbers = [runs.trainings, runs.trained, runs.tested, *spent]
        numbers.append(4e-9 * one.cached * runs.kept)
        totals = [a + b for a, b in zip(totals, numbers, strict=True)]
        rows.append([method, *_cells(numbers)])
    rows.append(["**all**", *_cells(totals)])
    columns = ["method", "trainings", "images trained", "images tested"]
    columns += [f"h, {gpu}, {precision}" for gpu in GPUS for precision in BYTES]
    return table([*columns, "cache, GB"], rows)


def _cells(numbers: list[float]) -> list[str]:
    return [
        *(f"{value:,.0f}" for value in numbers[:3]),
        *(f"{value:.2f}" for value in numbers[3:7]),
        f"{numbers[7]:.1f}",
    ]


def sweep() -> str:
    """GPU-hours, disk and limit of 100 trainings of Crane, by cache."""
    jobs, epochs, source, target = SWEEP
    one, rows = cost("crane"), []
    assert one.step is not None
    size = 4 * one.cached
    towers = {
        "off": (jobs * (epochs * source + target), 0),
        "source": (source + jobs * target, source),
        "all": (source + target, source + target),
    }
    for name, (encoded, kept) in towers.items():
        used = jobs * (epochs * source + target)
        learned = jobs * epochs * source
        spent = {
            precision: hours(one.encode, "H100", precision, encoded)
            + hours(one.step, "H100", precision, learned)
            + hours(one.head, "H100", precision, jobs * target)
            for precision in BYTES
        }
        loading = encoded / LOADED / CORES / 3600
        reading = (used - encoded if kept else 0) * size / READ / 3600
        times = {"arithmetic": spent["bfloat16"], "loading": loading, "disk": reading}
        limit = max(times, key=lambda key: times[key])
        rows.append(
            [
                f"`cache={name}`",
                f"{encoded:,}",
                *(f"{value:.2f}" for value in spent.values()),
                f"{loading:.2f}",
                f"{reading:.2f}",
                f"{size * kept / 1000000000.0:.1f}",
                limit,
            ]
        )
    columns = ["", "images encoded", "h, bfloat16", "h, float32", "h, cores", "h, disk"]
    return table([*columns, "cache, GB", "limit, bfloat16"], rows)


def many() -> str:
    """GPU-hours of ten million images by method, and what limits them."""
    rows = []
    loading = MANY / LOADED / CORES / 3600
    for method in METHODS:
        work = cost(method).encode + cost(method).head
        spent = {precision: hours(work, "H100", precision, MANY) for precision in BYTES}
        limits = ["GPU" if value > loading else "loading" for value in spent.values()]
        rows.append([method, *(f"{value:.0f}" for value in spent.values()), *limits])
    columns = ["method", "h, H100, bfloat16", "h, H100, float32"]
    return table([*columns, "limit, bfloat16", "limit, float32"], rows)


def page(plan: Plan) -> str:
    """docs/cost.md, for the plan of Table 1."""
    jobs, epochs, source, target = SWEEP
    suite = build(compose("reproduce", ["experiments=[x]"]).suite, "suite")
    written = estimate(plan.trainings, plan.distinct_tests, suite, "gpu").megabytes
    peaks = table(
        ["GPU", "bfloat16, TFLOP/s", "float32, TFLOP/s", "memory, TB/s"],
        [[name, *(f"{value / 1e12:.4g}" for value in gpu)] for name, gpu in GPUS.items()],
    )
    h100, num_tests = GPUS["H100"], len(plan.distinct_tests)
    ridges = [f"{getattr(h100, name) / h100.bandwidth:.0f}" for name in BYTES]
    map_size, files = 2 * 518 * 518, MANY * PHOTO
    return _wrapped(f"""# Cost on paper

Written by `python -m benchmarks cost`. Nothing on this page is measured on a GPU: it is arithmetic.
Operations are those of products of matrices, 2abc for (a, b) by (b, c). Tests compare them, a step
of each training, the bytes and the cache with what PyTorch counts on a small model, and the forward
with the paper's ViT-L/14. Norms, softmaxes, activations, upsampling and k-means are left out, and
so are the waits between small kernels.

## Assumptions

{peaks}
Peaks are dense, from NVIDIA's data sheets (SXM, 80 GB).

- {UTILISATION:.0%} of both peaks is reached, with {BATCH} images a batch.
- float32 is `trainer.precision=32-true`, as published: without TF32.
- A core loads {LOADED:.0f} images a second ([loading](../benchmarks/loading.md): 27 to 46).
- {CORES} cores stand beside a GPU.
- A disk reads {READ / 1e9:.0f} GB/s. An image file has {PHOTO / 1e6:.1f} MB.

## One image

Billions of operations. `encode` is the frozen part, whose output the cache keeps. `head` makes
score and map from it. `text` is for the class "object", once for a test, and beside it are its
sentences and their tokens. `step` computes the losses and gradients of a training from the output
of `encode`. AdaCLIP's sentences depend on the image: they are in its head. A batch of {BATCH}
shares AnomalyCLIP's.

{parts()}
Megabytes that the products of `encode` and `head` read and write in bfloat16, if each operand moves
once and attention keeps its weights on the chip. Weights are read once a batch. With fewer
operations a byte than {ridges[0]} in bfloat16, or {ridges[1]} in float32, the memory of an H100
would be the limit. The cache is in float32; `cache.dtype=float16` halves it.

{traffic()}
Images per second, and the cores that load as fast as an H100 scores in bfloat16:

{speeds()}
## Table 1

[The recipe](../experiments/table1_zero_shot) has {len(plan.trainings)} trainings and {num_tests}
tests. The features of a source are computed once a training, or in every epoch where mosaics make
new images (VAND on MVTec AD). Results take {written / 1000:.1f} GB. The data sets come on top:
`crane data list` shows their sizes. Loading every image once takes {_loading(plan):.2f} h on
{CORES} cores, less than the GPU needs in any column.

{table_1(plan)}
## A sweep of {jobs} jobs

{jobs} trainings of Crane on one H100, {epochs} epochs on MVTec AD ({source:,} images), each tested
on VisA ({target:,} images): hours of the GPU, of {CORES} cores that load images, and of the disk
that features are read from. Where the disk is the limit, a machine that keeps the
{_kept() / 1e9:.0f} GB in memory is not held up.

{sweep()}
Results take {jobs * (epochs * 0.2 + 2) / 1000:.1f} GB.

## 10 million images

`crane predict` reads {files / 1e12:.0f} TB of files. One disk delivers them in
{files / READ / 3600:.1f} h; {CORES} cores load them in {MANY / LOADED / CORES / 3600:.1f} h. Scores
take at most {MANY * ROW / 1e9:.0f} GB as Parquet. A map of 518 px has {map_size / 1e6:.2f} MB
before its compression, all maps {MANY * map_size / 1e12:.1f} TB: use `maps=none overlays=none` if
nobody looks at them. Features are not kept, since each image is used once.

{many()}
More GPUs with as many cores each divide the hours ([scaling.md](scaling.md)).
""")


def _wrapped(text: str) -> str:
    """Paragraphs with lines of at most 100 characters; tables, lists and titles as they are."""
    blocks = text.strip().split("\n\n")
    parts = [
        one if one[0] in "#|-" else fill(one, 100, break_long_words=False, break_on_hyphens=False)
        for one in blocks
    ]
    return "\n\n".join(parts) + "\n"


def _kept() -> float:
    """Bytes of the sweep's features."""
    return 4 * cost("crane").cached * sum(SWEEP[2:])


def _loading(plan: Plan) -> float:
    """Hours in which the cores load every image of a plan."""
    images = sum(test.num_images for test in plan.distinct_tests)
    images += sum(training.num_images // training.num_epochs for training in plan.trainings)
    return images / LOADED / CORES / 3600


def main() -> None:
    """Plan Table 1 without its data, and write the page."""
    places = {"datasets_dir": "none", "weights_dir": "none", "allow_download": True}
    suite = build(compose("reproduce", ["experiments=[x]"]).suite, "suite")
    recipe = read_recipe(RECIPE)
    plan = Planner(places, Path("none")).plan({recipe.name: expand(recipe, suite)})
    PAGE.write_text(page(plan), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
