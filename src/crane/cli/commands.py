"""`crane train`, `crane test` and `crane predict`."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane import prediction, training
from crane.cli.launch import share_cores
from crane.cli.recording import Recording
from crane.data.loader import auto_num_workers
from crane.errors import UsageError
from crane.files import sha256, shown_path
from crane.gate import build
from crane.methods import adopt_config, build_model, load_prompts, model_config, read_checkpoint
from crane.prediction import (
    Calibration,
    Detector,
    DetectorOptions,
    LoadOptions,
    OutputOptions,
    PredictSummary,
    Shard,
    TableOptions,
    Threshold,
)
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
    with Recording(config, "test") as run:
        run.check()
        checkpoint = read_checkpoint(config.checkpoint)
        config = adopt_config(config, checkpoint, HydraConfig.get().overrides.task)
        run.describe(config, checkpoint)
        if not run.is_done():
            show(config, run.keep(training.test(config, checkpoint)))
    return run.objective


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
    console.print(f"prompts   {escape(shown_path(summary.checkpoint))}", soft_wrap=True)
    for gallery in (path for path in summary.overlays if path.name == "gallery.png"):
        console.print(f"pictures  {escape(shown_path(gallery))}", soft_wrap=True)
    files = [name for name in FILES if (summary.folder / name).is_file()]
    place = escape(shown_path(summary.folder))
    console.print(f"the rest  {place}: {', '.join(files)}", soft_wrap=True)


def predict(config: DictConfig) -> None:
    """Score images of the user's own."""
    checkpoint = read_checkpoint(config.checkpoint)
    config = adopt_config(config, checkpoint, HydraConfig.get().overrides.task)
    shard = prediction.find_shard(config.shard)
    _check_shared_output(config, shard)
    output = Path(config.output).expanduser()
    images = prediction.find_images(config.input, exclude=output)
    device = _device(config.accelerator)
    options = DetectorOptions(device, str(config.precision), config.compile)
    num_workers = auto_num_workers(1) if config.num_workers == "auto" else config.num_workers

    def load_detector() -> Detector:
        model = build_model(config)
        load_prompts(model, checkpoint.prompts)
        return prediction.crane_detector(model, options)

    summary = prediction.predict(
        load_detector,
        images,
        made_of={
            "checkpoint": sha256(Path(config.checkpoint).expanduser()),
            **model_config(config),
            "precision": config.precision,
        },
        output=output,
        overwrite=config.overwrite,
        shard=shard,
        loading=LoadOptions(config.image_size, config.batch_size, num_workers, config.on_error),
        outputs=OutputOptions(
            config.maps,
            config.overlays,
            build(config.overlay.scale, "overlay.scale"),
            config.overlay.alpha,
        ),
        scores=TableOptions(config.scores, config.part_size),
        threshold=_threshold(config),
        device=device,
        show_progress=True,
    )
    _show_prediction(config, summary, output)


def _check_shared_output(config: DictConfig, shard: Shard) -> None:
    """Refuse shards that would each have a folder of their own, or empty that of the others."""
    if shard.count == 1:
        return
    if config.overwrite:
        raise UsageError(
            "no other shard's scores to be removed",
            "overwrite=true",
            key="overwrite",
            hint=f"remove {config.output} once, before shards begin",
        )
    hydra = HydraConfig.get().overrides
    keys = {override.partition("=")[0] for override in (*hydra.task, *hydra.hydra)}
    if not keys & {"output", "run_dir", "hydra.run.dir"}:
        raise UsageError("output=FOLDER, which all shards share", "none", key="output")


def _threshold(config: DictConfig) -> Threshold | Calibration | None:
    """The threshold given, or what to choose it from."""
    normals, rate = config.calibration.input, config.calibration.false_alarm_rate
    if config.threshold is not None and normals is not None:
        raise UsageError(
            "a threshold or images to calibrate one on",
            "both",
            key="threshold or calibration.input",
        )
    if normals is not None:
        return Calibration(prediction.find_images(normals), rate)
    return None if config.threshold is None else Threshold(float(config.threshold))


def _show_prediction(config: DictConfig, summary: PredictSummary, output: Path) -> None:
    console = Console(highlight=False)
    for image, reason in summary.skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(image)}: {escape(reason)}")
    if summary.num_skipped > len(summary.skipped):
        console.print(f"… and {summary.num_skipped - len(summary.skipped)} more, see the scores")
    called = "" if summary.threshold is None else f", {summary.num_anomalous} called anomalous"
    console.print(f"{summary.num_scored} of {summary.num_images} images scored{called}")
    if summary.num_missing:
        console.print(
            f"{summary.num_missing} are left to other shards; the last to end writes all results",
            soft_wrap=True,
        )
    console.print(f"scores    {escape(shown_path(summary.scores))}", soft_wrap=True)
    for name, kind in (("maps", config.maps), ("overlays", config.overlays)):
        if kind != "none":
            console.print(f"{name:<9} {escape(shown_path(output / name))}", soft_wrap=True)


def _device(accelerator: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    # Of several processes on a machine, each takes the next of its GPUs.
    number = prediction.local_rank() % torch.cuda.device_count() if cuda else 0
    devices = {"gpu": f"cuda:{number}", "cuda": f"cuda:{number}"} if cuda else {}
    devices |= {"mps": "mps"} if mps else {}
    devices |= {"cpu": "cpu"}
    devices["auto"] = next(iter(devices.values()))
    if accelerator not in devices:
        wanted = f"an accelerator that this machine has, out of {', '.join(devices)}"
        raise UsageError(wanted, accelerator, key="accelerator")
    return torch.device(devices[accelerator])
