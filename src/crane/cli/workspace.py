"""`crane workspace`: a dashboard on Weights & Biases in one command."""

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.cli.mistakes import listed
from crane.errors import UsageError
from crane.runs.tables import HEADINGS
from crane.training.wandb_workspace import build_workspace, save_workspace


def workspace(config: DictConfig) -> None:
    """Save the workspace, and print its sections and where it is.

    Raises:
        UsageError: Data sets that are no list, or a panel of no metric.
    """
    datasets = listed(config.datasets, "datasets", "data sets such as [visa]")
    for metric in config.panels:
        if metric not in HEADINGS:
            raise UsageError(f"metrics out of {', '.join(HEADINGS)}", metric, key="panels")
    made = build_workspace(
        entity=config.entity,
        project=config.project,
        name=config.name,
        datasets=datasets,
        metrics=list(config.panels),
    )
    address = save_workspace(made)
    console = Console(highlight=False)
    for section in made.sections:
        console.print(f"  {escape(section.name)}: {len(section.panels)} panels")
    console.print(escape(address), soft_wrap=True)
