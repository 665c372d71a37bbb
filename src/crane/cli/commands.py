"""`crane train`, `crane test` and `crane predict`."""

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane import prediction, training
from crane.cli.launch import share_cores
from crane.cli.recording import Recording
from crane.errors import UsageError, counted
from crane.files import shown_path
from crane.methods import PromptCheckpoint, adopt_config, read_checkpoint
from crane.prediction import PredictSummary
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
        checkpoint, config = _read(config)
        run.describe(config, checkpoint)
        if not run.is_done():
            show(config, run.keep(training.test(config, checkpoint)))
    return run.objective


def _read(config: DictConfig) -> tuple[PromptCheckpoint | None, DictConfig]:
    """The checkpoint, and the configuration with its model; none for methods that train nothing."""
    if config.checkpoint is None:
        return None, config
    checkpoint = read_checkpoint(config.checkpoint)
    return checkpoint, adopt_config(config, checkpoint, HydraConfig.get().overrides.task)


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
    checkpoint, config = _read(config)
    _check_shared_output(config)
    _show_prediction(config, prediction.predict(config, checkpoint))


def _check_shared_output(config: DictConfig) -> None:
    """Refuse shards that would each write to a folder of their own, or empty that of the others."""
    if prediction.find_shard(config.shard).count == 1:
        return
    if config.overwrite:
        raise UsageError(
            "overwrite=true would remove the scores of other shards; "
            f"remove {config.output} once, before they start",
            key="overwrite",
        )
    hydra = HydraConfig.get().overrides
    keys = {override.partition("=")[0] for override in (*hydra.task, *hydra.hydra)}
    if not keys & {"output", "run_dir", "hydra.run.dir"}:
        raise UsageError("shards need output=FOLDER, the same for all of them", key="output")


def _show_prediction(config: DictConfig, summary: PredictSummary) -> None:
    console = Console(highlight=False)
    for image, reason in summary.skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(image)}: {escape(reason)}")
    if summary.num_skipped > len(summary.skipped):
        console.print(f"… and {summary.num_skipped - len(summary.skipped)} more, see the scores")
    called = "" if summary.num_anomalous is None else f", {summary.num_anomalous} called anomalous"
    if summary.num_missing:
        console.print(
            f"{counted(summary.num_scored, 'image')} scored by this shard{called}; "
            f"{summary.num_missing} of {summary.num_images} are left to other shards, "
            "the last of which joins all results",
            soft_wrap=True,
        )
    else:
        console.print(f"{summary.num_scored} of {summary.num_images} images scored{called}")
    console.print(f"scores    {escape(shown_path(summary.scores))}", soft_wrap=True)
    for name, kind in (("maps", config.maps), ("overlays", config.overlays)):
        if kind != "none":
            console.print(f"{name:<9} {escape(shown_path(summary.output / name))}", soft_wrap=True)
