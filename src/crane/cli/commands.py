"""What each command does with its configuration."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane import prediction, training
from crane.cli.recording import Recording
from crane.config import plain
from crane.data.loader import auto_num_workers
from crane.errors import UsageError
from crane.models import build_model, load_prompts
from crane.prediction import LoadOptions, OutputOptions, Threshold
from crane.reporting import class_table, mean_table
from crane.training import RunSummary, adopt_config, own_processes, read_checkpoint
from crane.weights import PRESENT, WeightStatus, weight_status, weights_needed

FILES = ("results.csv", "results.json", "config.yaml", "record.json")
"""What a run may leave in its folder, beside prompts and pictures."""


@own_processes()
def train(config: DictConfig) -> None:
    """Learn prompts on the source, then test on every target."""
    with Recording(config, "train") as run:
        if not run.is_done():
            show(config, run.keep(training.train(config)))


@own_processes()
def test(config: DictConfig) -> None:
    """Test a checkpoint on every target."""
    with Recording(config, "test") as run:
        checkpoint = read_checkpoint(config.checkpoint)
        config = adopt_config(config, checkpoint, HydraConfig.get().overrides.task)
        run.describe(config, checkpoint)
        if not run.is_done():
            show(config, run.keep(training.test(config, checkpoint)))


@rank_zero_only
def show(config: DictConfig, summary: RunSummary) -> None:
    """Print the tables of a run, and where the rest is."""
    console = Console(highlight=False)
    columns = list(config.table_columns)
    for result in summary.results:
        console.print(class_table(result, columns))
    if len(summary.results) > 1:
        means = mean_table({config.method.name: summary.results}, columns, title="Means")
        console.print(means)
    console.print(f"prompts   {escape(shown(summary.checkpoint))}", soft_wrap=True)
    for gallery in (path for path in summary.overlays if path.name == "gallery.png"):
        console.print(f"pictures  {escape(shown(gallery))}", soft_wrap=True)
    files = [name for name in FILES if (summary.folder / name).is_file()]
    place = escape(shown(summary.folder))
    console.print(f"the rest  {place}: {', '.join(files)}", soft_wrap=True)


def shown(path: Path) -> str:
    """A path from the current folder where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def predict(config: DictConfig) -> None:
    """Score images of the user's own."""
    checkpoint = read_checkpoint(config.checkpoint)
    config = adopt_config(config, checkpoint, HydraConfig.get().overrides.task)
    if config.threshold is not None and config.calibration.input is not None:
        raise UsageError(
            "a threshold or images to calibrate one on",
            "both",
            key="threshold or calibration.input",
        )
    output = Path(config.output).expanduser()
    images = prediction.find_images(config.input, exclude=output)
    model = build_model(config)
    load_prompts(model, checkpoint.prompts)
    device = _device(config.accelerator)
    model.to(device)
    num_workers = auto_num_workers(1) if config.num_workers == "auto" else config.num_workers
    loading = LoadOptions(config.image_size, config.batch_size, num_workers, config.on_error)
    scale = instantiate(config.overlay.scale)
    threshold = None if config.threshold is None else Threshold(float(config.threshold))
    if config.calibration.input is not None:
        threshold = prediction.calibrate_on(
            model,
            prediction.find_images(config.calibration.input),
            config.calibration.false_alarm_rate,
            loading,
            device=device,
            show_progress=True,
        )
    summary = prediction.predict(
        model,
        images,
        output=output,
        loading=loading,
        outputs=OutputOptions(config.maps, config.overlays, scale, config.overlay.alpha),
        threshold=threshold,
        device=device,
        show_progress=True,
    )
    console = Console(highlight=False)
    for image, reason in summary.skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(str(image))}: {escape(reason)}")
    called = "" if threshold is None else f", {summary.num_anomalous} called anomalous"
    console.print(f"{summary.num_scored} of {summary.num_images} images scored{called}")
    console.print(f"scores    {escape(shown(summary.csv))}", soft_wrap=True)
    for name, kind in (("maps", config.maps), ("overlays", config.overlays)):
        if kind != "none":
            console.print(f"{name:<9} {escape(shown(output / name))}", soft_wrap=True)


def _device(accelerator: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    devices = {"gpu": "cuda", "cuda": "cuda"} if cuda else {}
    devices |= {"mps": "mps"} if mps else {}
    devices |= {"cpu": "cpu"}
    devices["auto"] = next(iter(devices.values()))
    if accelerator not in devices:
        wanted = f"an accelerator that this machine has, out of {', '.join(devices)}"
        raise UsageError(wanted, accelerator, key="accelerator")
    return torch.device(devices[accelerator])


def weights(config: DictConfig) -> None:
    """List the weights that a configuration needs, and verify those present."""
    names = weights_needed(plain(config))
    console = Console(highlight=False)
    if not names:
        console.print("This configuration needs no weight files: everything is random.")
        return
    statuses = [weight_status(name, config.weights_dir) for name in names]
    for status in statuses:
        _print_status(console, status, str(config.weights_dir))
    absent = [status.name for status in statuses if status.state != PRESENT]
    if absent:
        raise UsageError(
            "every file present and whole",
            f"{len(absent)} of {len(names)} not: {', '.join(absent)}",
            key="weights_dir",
            hint="with allow_download=true (the default) they are fetched on first use",
        )


def _print_status(console: Console, status: WeightStatus, folder: str) -> None:
    colour = "green" if status.state == PRESENT else "red"
    checked = ", sha256 verified" if status.verified else ""
    console.print(f"[bold]{escape(status.name)}[/bold]: [{colour}]{status.state}[/]{checked}")
    facts = [("at", str(status.path))] if status.path else [("put it in", folder)]
    if status.entry is not None:
        facts += [
            ("file", " or ".join(status.entry.files)),
            ("from", status.entry.source),
            ("sha256", status.entry.sha256 or "not known"),
            ("size", f"about {status.entry.size_mb} MB"),
            ("licence", status.entry.licence),
        ]
    for name, value in facts:
        console.print(f"  {name:<10} {escape(value)}", soft_wrap=True)
