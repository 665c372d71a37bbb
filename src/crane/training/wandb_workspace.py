"""A team's dashboard on Weights & Biases, built by code: the panels of what crane logs there.

`wandb-workspaces` is an optional extra of crane's; the keys are those of docs/wandb.md.
"""

from collections.abc import Sequence
from typing import Any

from crane.errors import UsageError
from crane.pictures import KINDS
from crane.runs import SIZES
from crane.training.loggers import has_key

LOSSES = ("loss", "focal", "dice", "image")
"""What a training step logs, below `train/`."""
SYSTEM = ("cpu", "memory_percent", "proc.memory.rssMB", "gpu.0.gpu", "gpu.0.memoryAllocated")
"""What W&B measures of the machine, below `system/`."""
LINE_SERIES = "wandb/lineseries/v0"
"""W&B's own chart of lines from a table, which `wandb.plot.line_series` uses too."""


def build_workspace(
    *, entity: str, project: str, name: str, datasets: Sequence[str], metrics: Sequence[str]
) -> Any:
    """Lay out a workspace; nothing is sent.

    Args:
        entity: Team or user the project belongs to.
        project: The project that runs were logged to.
        name: Of the saved view.
        datasets: Targets with a section each, by the names under which runs log them.
        metrics: Metrics with a panel each, such as `image_auroc`.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, to be saved with `save_workspace`.

    Raises:
        UsageError: If wandb-workspaces is not installed, or there is no data set or metric.
    """
    if not datasets or not metrics:
        raise UsageError("at least one data set and one metric", "none", key="datasets or panels")
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
        UsageError: If there is no W&B login.
    """
    if not has_key():
        raise UsageError(
            "a W&B login: a workspace is kept on its server",
            "neither WANDB_API_KEY nor a stored login",
            hint="type `wandb login` first",
        )
    return str(workspace.save().url)


def _modules() -> tuple[Any, Any]:
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise UsageError(
            "the package wandb-workspaces",
            f"{error}",
            hint="pip install 'crane-ad[wandb-workspaces]'",
        ) from error
    return workspaces, panels


def _results(panels: Any, datasets: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    """A bar chart a metric, with the runs of every target."""
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
