"""Weights & Biases: the logger, what a run logs beside its scalars, and a team's dashboard.

docs/wandb.md lists the keys. `wandb` is imported where it is used, since it takes a second;
`wandb-workspaces`, for the dashboard, is an optional extra.
"""

import logging
import math
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from crane.checks import Text, checked
from crane.errors import UsageError
from crane.identity import OPTIONS
from crane.metrics import Curve
from crane.pictures import KINDS, ColourScale, Panel, heat_map
from crane.runs import SIZES, DatasetResult
from crane.training.callbacks import WriteTestResults
from crane.training.module import CraneModule

logger = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"
"""W&B's server, unless `WANDB_BASE_URL` names another."""
NUM_POINTS = 200
"""Points of a logged curve; W&B draws them in the browser."""
LOSSES = ("loss", "focal", "dice", "image")
"""Values that a training step logs, below `train/`."""
SYSTEM = ("cpu", "memory_percent", "proc.memory.rssMB", "gpu.0.gpu", "gpu.0.memoryAllocated")
"""W&B's measurements of the machine, below `system/`."""
LINE_SERIES = "wandb/lineseries/v0"
"""W&B's own chart of lines from a table, which `wandb.plot.line_series` uses too."""


@checked
def wandb_logger(
    *,
    project: Text,
    name: str | None,
    group: str | None,
    tags: Literal["auto"] | Sequence[str],
    offline: bool | Literal["auto"],
    save_dir: Text | Path,
) -> WandbLogger:
    """A Weights & Biases logger that works without a key.

    Args:
        project: The project's name.
        name: The run's name; `auto` is the overrides that a job of a multirun varies, None lets
            W&B choose.
        group: Name of runs that belong together; `auto` is the multirun's name.
        tags: Words to find it by; `auto` is the chosen options, such as `attention:vv`.
        offline: `auto` is true if neither `WANDB_API_KEY` nor a stored login is found.
        save_dir: Folder of the run's files.
    """
    if offline == "auto":
        offline = not has_key() and os.environ.get("WANDB_MODE") is None
    if offline:
        logger.info("W&B runs offline; later: wandb sync %s/wandb/offline-run-*", save_dir)
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=project,
        name=job_name() if name == "auto" else name,
        group=sweep_name() if group == "auto" else group,
        tags=chosen_options() if tags == "auto" else list(tags),
        offline=bool(offline),
        save_dir=save_dir,
    )


def sweep_name() -> str | None:
    """The name of the multirun to which this job belongs; None outside one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def job_name() -> str | None:
    """The overrides of this job in a multirun, such as `attention=vv,seed=2`; None outside one."""
    if sweep_name() is None:
        return None
    return str(HydraConfig.get().job.override_dirname) or None


def chosen_options() -> list[str]:
    """The options chosen in the groups that distinguish runs, such as `attention:vv`."""
    if not HydraConfig.initialized():
        return []
    choices = HydraConfig.get().runtime.choices
    return [f"{group}:{choices[group]}" for group in OPTIONS if choices.get(group)]


@contextmanager
def closing(run_logger: Logger | None) -> Iterator[None]:
    """Finish the W&B run when the block ends, so that the next job of a multirun starts its own.

    Args:
        run_logger: The trainer's logger; other loggers than W&B's are left alone, and so is a W&B
            run that was started before.
    """
    if not isinstance(run_logger, WandbLogger):
        yield
        return
    import wandb

    is_ours = wandb.run is None
    try:
        yield
    except BaseException:
        if is_ours:
            wandb.finish(exit_code=1)
        raise
    if is_ours:
        wandb.finish()


def has_key() -> bool:
    """Whether `WANDB_API_KEY` or a stored login is found."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).netloc
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class LogToWandb(Callback):
    """Logs a test's tables, curves and pictures to W&B, if that is the logger.

    Args:
        write: Its pictures are logged too; it must come before this callback.
    """

    def __init__(self, write: WriteTestResults) -> None:
        self.write = write

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log tables, curves and pictures of every target."""
        if not isinstance(trainer.logger, WandbLogger):
            return
        assert isinstance(pl_module, CraneModule)
        curves = pl_module.curves()  # gathered from all processes, so all must call it
        if not trainer.is_global_zero:
            return
        content: dict[str, Any] = {}
        for result in pl_module.results:
            name = result.dataset
            content[f"results/{name}"] = _table(result)
            for kind, lines in curves[name].items():
                if chart := _chart(kind, lines, result.class_names):
                    content[f"curves/{name}/{kind}"] = chart
            if panels := self.write.panels.get(name):
                content[f"images/{name}"] = _images(panels, self.write.options.scale)
        trainer.logger.experiment.log(content)


def log_prompts(run_logger: Logger | None, prompts: Path, facts: Mapping[str, Any]) -> None:
    """Store learned prompts as an artifact of a W&B run; does nothing for other loggers.

    Args:
        run_logger: The trainer's logger.
        prompts: The file.
        facts: Metadata of the artifact.
    """
    if not isinstance(run_logger, WandbLogger):
        return
    import wandb

    run = run_logger.experiment
    artifact = wandb.Artifact(f"prompts-{run.id}", type="prompts", metadata=dict(facts))
    artifact.add_file(str(prompts))
    run.log_artifact(artifact)


def _table(result: DatasetResult) -> Any:
    import wandb

    rows = result.rows()
    columns = list(rows[-1])
    return wandb.Table(
        columns=columns,
        data=[[None if _is_nan(row[c]) else row[c] for c in columns] for row in rows],
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _chart(kind: str, curves: Sequence[Curve], class_names: Sequence[str]) -> Any:
    """A chart with one line per class; None if no class has the curve."""
    import wandb

    named = zip(class_names, curves, strict=True)
    drawn = {name: curve.thinned(NUM_POINTS) for name, curve in named if len(curve.x)}
    if not drawn:
        return None
    return wandb.plot.line_series(
        xs=[curve.x.tolist() for curve in drawn.values()],
        ys=[curve.y.tolist() for curve in drawn.values()],
        keys=list(drawn),
        title=kind.replace("_", " "),
        xname=curves[0].x_name.replace("_", " "),
    )


def _images(panels: Sequence[Panel], scale: ColourScale) -> list[Any]:
    """Each image with its true region as a mask to switch on and off, then its map."""
    import wandb

    images = []
    for panel in panels:
        caption = f"{panel.caption}, score {panel.score:.3f}"
        masks = None
        if panel.mask is not None:
            truth = {"mask_data": panel.mask.astype("uint8"), "class_labels": {1: "anomalous"}}
            masks = {"truth": truth}
        images.append(wandb.Image(panel.image, caption=caption, masks=masks))
        images.append(wandb.Image(heat_map(panel.map, scale), caption=f"map: {caption}"))
    return images


def build_workspace(
    *, entity: str, project: str, name: str, datasets: Sequence[str], metrics: Sequence[str]
) -> Any:
    """Lay out a workspace; nothing is sent.

    Args:
        entity: Team or user the project belongs to.
        project: The project that runs were logged to.
        name: Name of the saved view.
        datasets: Targets with a section each, under the names that runs log.
        metrics: Metrics with a panel each, such as `image_auroc`.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, to be saved with `save_workspace`.

    Raises:
        UsageError: wandb-workspaces is not installed, or there is no data set or metric.
    """
    for key, names in (("datasets", datasets), ("panels", metrics)):
        if not names:
            raise UsageError(f"{key} must name at least one", key=key)
    workspaces, panels = _modules()
    sections = [
        workspaces.Section("Results", _results(panels, datasets, metrics), is_open=True),
        *(
            workspaces.Section(dataset, _target(panels, dataset), is_open=place == 0)
            for place, dataset in enumerate(datasets)
        ),
        workspaces.Section("Training", _training(panels)),
        workspaces.Section("Configuration", [panels.RunComparer(diff_only="split")]),
        workspaces.Section("System", _lines(panels, [f"system/{one}" for one in SYSTEM])),
    ]
    columns = [f"summary:test/{datasets[0]}/{metric}" for metric in metrics]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Metric("Group")], pinned_columns=columns
        ),
    )


def save_workspace(workspace: Any) -> str:
    """Save a workspace for everyone who sees the project.

    Returns:
        Its address.

    Raises:
        UsageError: There is no W&B login.
    """
    if not has_key():
        raise UsageError(
            "a workspace is saved on W&B's server, and neither WANDB_API_KEY nor a stored login is "
            "found; type `wandb login` first"
        )
    return str(workspace.save().url)


def _modules() -> tuple[Any, Any]:
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise UsageError(
            f"a workspace needs wandb-workspaces ({error}); pip install "
            "'crane-ad[wandb-workspaces]'"
        ) from error
    return workspaces, panels


def _results(panels: Any, datasets: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    """One bar chart per metric, with the runs of every target."""
    return [
        panels.BarPlot(title=metric, metrics=[f"test/{dataset}/{metric}" for dataset in datasets])
        for metric in metrics
    ]


def _target(panels: Any, dataset: str) -> list[Any]:
    """The classes, pictures, sizes of regions and curves of one target."""
    fields = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
    curves = [
        panels.CustomChart(
            query={"summaryTable": {"tableKey": f"curves/{dataset}/{kind}_table"}},
            chart_name=LINE_SERIES,
            chart_fields=fields,
            chart_strings={"title": f"{dataset}, {called}"},
        )
        for kind, called in KINDS.items()
    ]
    sizes = [f"test/{dataset}/{size}" for size in SIZES]
    return [
        panels.WeavePanelSummaryTable(table_name=f"results/{dataset}"),
        panels.MediaBrowser(title="images and maps", media_keys=[f"images/{dataset}"]),
        panels.BarPlot(title="AUPRO by size of the region", metrics=sizes),
        *curves,
    ]


def _training(panels: Any) -> list[Any]:
    return [
        *_lines(panels, [f"train/{name}" for name in LOSSES]),
        panels.LinePlot(title="held-out part of the source", y=["val/mean"]),
    ]


def _lines(panels: Any, keys: Sequence[str]) -> list[Any]:
    return [panels.LinePlot(title=key, y=[key]) for key in keys]
