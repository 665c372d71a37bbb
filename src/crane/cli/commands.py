"""The commands that run a model: train, test, demo, predict, serve, app and export."""

from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.markup import escape

from crane import prediction, training
from crane.checks import one_of
from crane.cli.launch import share_cores, softly_stopping
from crane.cli.recording import Recording
from crane.cli.validation import options
from crane.config import compose, conf_dir, plain
from crane.data.images import read_rgb
from crane.errors import UsageError, counted
from crane.files import shown_path
from crane.methods import (
    AUTO,
    PromptCheckpoint,
    adopt_config,
    default_checkpoint,
    open_checkpoint,
)
from crane.prediction import (
    AnomalyDetector,
    DetectorOptions,
    PredictSummary,
    Threshold,
    find_device,
    find_images,
)
from crane.prediction.exporting import FORMATS, differences
from crane.processes import ALONE, launched
from crane.runs import class_table, mean_table
from crane.training import RunSummary, own_processes

FILES = ("results.csv", "results.json", "config.yaml", "record.json")
"""Files that a run may leave in its folder, beside prompts and pictures."""


@own_processes()
def train(config: DictConfig) -> float | None:
    """Train prompts on the source, then test them on every target."""
    share_cores(config)
    with Recording(config, "train") as run:
        run.check()
        if not run.is_done():
            show(config, run.keep(training.train(config)))
    return run.objective


@own_processes()
def test(config: DictConfig) -> float | None:
    """Test a checkpoint on every target."""
    share_cores(config)
    checkpoint, config, typed = read_checkpoint(config)
    with Recording(typed, "test") as run:
        run.check()
        run.describe(config, checkpoint)
        if not run.is_done():
            show(config, run.keep(training.test(config, checkpoint)))
    return run.objective


def read_checkpoint(
    config: DictConfig,
) -> tuple[PromptCheckpoint | None, DictConfig, DictConfig]:
    """Read the checkpoint: it, the configuration with its model, the one typed with its file."""
    if config.checkpoint == AUTO:
        config.checkpoint = default_checkpoint(config)
    if config.checkpoint is None:
        return None, config, config
    checkpoint = open_checkpoint(
        config.checkpoint, config.weights_dir, allow_download=config.allow_download
    )
    config.checkpoint = str(checkpoint.path)
    overrides = HydraConfig.get().overrides.task
    return checkpoint, adopt_config(config, checkpoint, overrides), config


@rank_zero_only
def show(config: DictConfig, summary: RunSummary) -> None:
    """Print the tables of a run and the paths of its files."""
    console = Console(highlight=False)
    columns = list(config.table_columns)
    for result in summary.results:
        console.print(class_table(result, columns))
    if len(summary.results) > 1:
        means = mean_table({config.method.name: summary.results}, columns, title="Means")
        console.print(means)
    if summary.checkpoint is not None:
        console.print(f"prompts   {escape(shown_path(summary.checkpoint))}", soft_wrap=True)
    for gallery in (path for path in summary.overlays if path.name == "gallery.png"):
        console.print(f"pictures  {escape(shown_path(gallery))}", soft_wrap=True)
    files = [name for name in FILES if (summary.folder / name).is_file()]
    place = escape(shown_path(summary.folder))
    console.print(f"the rest  {place}: {', '.join(files)}", soft_wrap=True)


def predict(config: DictConfig) -> None:
    """Score images of the user's own."""
    checkpoint, config, _ = read_checkpoint(config)
    _check_shared_output(config)
    with softly_stopping() if config.watch else nullcontext() as stop:
        _show_prediction(config, prediction.predict(config, checkpoint, stop=stop))


def serve(config: DictConfig) -> None:
    """Score images that come by HTTP."""
    from crane.serving import service  # an extra

    _, config, _ = read_checkpoint(config)
    service.serve(config)


def app(config: DictConfig) -> None:
    """Score images in the browser."""
    from crane.serving import app as page  # an extra

    for name in config.attentions:
        one_of(name, options(conf_dir() / "attention"), "attention", "attentions")
    folder = QuotedString(str(config.weights_dir), Quote.single).with_quotes()
    wanted = page.AppOptions(
        list(config.checkpoints),
        list(config.attentions),
        *(config.max_images, config.max_body_mb, config.max_pixels),
        *(config.accelerator, config.precision, config.class_name),
        overrides=[f"weights_dir={folder}", f"allow_download={config.allow_download}"],
    )
    page.run(wanted, host=config.host, port=config.port, share=config.share)


def _check_shared_output(config: DictConfig) -> None:
    """Refuse processes that would each write to a folder of their own, or empty the others'."""
    if (launched() or ALONE).size == 1:
        return
    if config.overwrite:
        raise UsageError(
            "overwrite=true would remove the scores of other processes; "
            f"remove {config.output} once, before they start",
            key="overwrite",
        )
    hydra = HydraConfig.get().overrides
    keys = {override.partition("=")[0] for override in (*hydra.task, *hydra.hydra)}
    if not keys & {"output", "run_dir", "hydra.run.dir"}:
        raise UsageError(
            "several processes need output=FOLDER, the same for all of them", key="output"
        )


def _show_prediction(config: DictConfig, summary: PredictSummary) -> None:
    console = Console(highlight=False)
    for image, reason in summary.skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(image)}: {escape(reason)}")
    if summary.num_skipped > len(summary.skipped):
        console.print(f"… and {summary.num_skipped - len(summary.skipped)} more, see the scores")
    called = "" if summary.num_anomalous is None else f", {summary.num_anomalous} called anomalous"
    if summary.num_missing:
        console.print(
            f"{counted(summary.num_scored, 'image')} scored by this process{called}; "
            f"{summary.num_missing} of {summary.num_images} are left to other processes, "
            "the last of which joins all results",
            soft_wrap=True,
        )
    else:
        console.print(f"{summary.num_scored} of {summary.num_images} images scored{called}")
    console.print(_decision(summary.threshold), soft_wrap=True)
    if summary.label_auroc is not None:
        value = f"{100 * summary.label_auroc:.1f}"
        doubt = "[yellow], below chance: normal images score higher[/yellow]"
        console.print(
            f"by the names of folders, the image AUROC is {value}"
            f"{doubt if summary.label_auroc < 0.5 else ''}",
            soft_wrap=True,
        )
    for name, path in (
        ("page", summary.page),
        ("scores", summary.scores),
        ("regions", summary.regions),
        *((kind, summary.output / kind) for kind in ("maps", "overlays") if config[kind] != "none"),
    ):
        if path is not None:
            console.print(f"{name:<9} {escape(shown_path(path))}", soft_wrap=True)


def _decision(threshold: Threshold | None) -> str:
    """The threshold, and how it was found."""
    if threshold is None:
        return (
            "no threshold: the same command with threshold=0.5, or with calibration.input=FOLDER "
            "of normal images, decides without scoring again if output=FOLDER stays the same"
        )
    if threshold.false_alarm_rate is None:
        return f"threshold {threshold.value:.6g}, as given"
    return (
        f"threshold {threshold.value:.6g}, calibrated on "
        f"{counted(threshold.num_normals or 0, 'normal image')} for a false-alarm rate of "
        f"{threshold.false_alarm_rate:g}"
    )


@own_processes()
def demo(config: DictConfig) -> None:
    """Run each method, then show what came out, where to look and what to type next."""
    console = Console(highlight=False)
    typed = list(HydraConfig.get().overrides.task)
    summaries: dict[str, RunSummary] = {}
    for name, overrides in config.methods.items():
        console.rule(f"{name}: train on {', '.join(config.source)}, then test")
        folder = Path(config.run_dir) / str(name)
        own = compose("demo", [*overrides, *typed, f"run_dir='{folder}'"])
        summaries[str(name)] = training.train(own)
    results = {name: summary.results for name, summary in summaries.items()}
    console.print(mean_table(results, list(config.table_columns), title="Domains never seen"))
    _next_steps(console, summaries, is_random=config.backbone.model.weights == "random")


def _next_steps(console: Console, summaries: dict[str, RunSummary], *, is_random: bool) -> None:
    if is_random:
        console.print(
            "\n[bold yellow]The backbone is random[/bold yellow]: it was never shown an image, so "
            "these numbers show that everything runs, not what Crane can do."
        )
    galleries = [p for s in summaries.values() for p in s.overlays if p.name == "gallery.png"]
    last = list(summaries.values())[-1]
    assert last.checkpoint is not None  # a training's
    lines = [
        "",
        "[bold]Look at[/bold]",
        *(f"  {escape(shown_path(path))}" for path in galleries),
        f"  {escape(shown_path(last.folder / 'results.csv'))}  per class and mean, for each target",
        "",
        "[bold]Then[/bold]",
        f"  crane predict checkpoint='{escape(shown_path(last.checkpoint))}' input=YOUR_IMAGES",
        "  crane weights method=crane_plus      what a real run needs, and where it comes from",
        "  crane train --help                   every group and option",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


NUM_COMPARED = 4
"""Images on which a file is compared with PyTorch."""
NUM_CALIBRATED = 128
"""Images on which the ranges of int8 are measured."""


def export(config: DictConfig) -> None:
    """Write the file, run it, and print how far it is from PyTorch.

    Raises:
        UsageError: The method is not one graph, or a value is wrong.
    """
    console = Console(highlight=False)
    suffix = FORMATS[config.format]
    path = Path(config.output or Path(config.run_dir) / f"model{suffix}").expanduser()
    if path.suffix != suffix:
        raise UsageError(
            f"{path.name} must end in {suffix} for format={config.format}", key="output"
        )
    checkpoint, config, _ = read_checkpoint(config)
    options = DetectorOptions(find_device("cpu"), "32-true", config.compile)
    detector = AnomalyDetector.from_config(config, checkpoint, options)
    if config.threshold is not None:
        detector.threshold = Threshold(float(config.threshold))
    size = plain(config)["size"]
    images = None if config.input is None else list(find_images(plain(config)["input"]))
    calibration = None
    if config.precision == "int8" and images is not None:
        calibration = (_sized(read_rgb(one), size) for one in islice(images, NUM_CALIBRATED))
    detector.export(path, precision=config.precision, size=size, calibration=calibration)
    compared = _drawn() if images is None else map(read_rgb, islice(images, NUM_COMPARED))
    apart = differences(detector, path, [_sized(one, size) for one in compared])
    console.print(f"model     {escape(shown_path(path))}", soft_wrap=True)
    where = "drawn images" if images is None else "the first images of input"
    console.print(
        f"compared  with PyTorch on {where}: scores differ by at most {apart.score:.1e}, "
        f"maps by {apart.map:.1e}, on average {apart.mean_map:.1e}",
        soft_wrap=True,
    )


def _drawn() -> list[Image.Image]:
    """A few embedded photographs, normal and anomalous."""
    from crane.drawn import embedded_domain
    from crane.drawn.scene import render

    domain = embedded_domain("photos")
    pictures = domain.pictures()
    chosen = pictures[:: len(pictures) // NUM_COMPARED][:NUM_COMPARED]
    return [Image.fromarray(render(domain, one).image) for one in chosen]


def _sized(image: Image.Image, size: list[int] | None) -> np.ndarray:
    """An image as an array, resized if the file takes images of one size only."""
    return np.asarray(image if size is None else image.resize((size[1], size[0])))
