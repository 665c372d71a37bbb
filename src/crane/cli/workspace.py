"""`crane workspace`: save a dashboard on Weights & Biases."""

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.checks import one_of
from crane.errors import counted
from crane.runs.results import HEADINGS


def workspace(config: DictConfig) -> None:
    """Save the workspace, and print its sections and its address.

    Raises:
        UsageError: A panel names an unknown metric.
    """
    for metric in config.panels:
        one_of(metric, HEADINGS, "metric", "panels")

    from crane.training.wandb_logging import build_workspace, save_workspace  # imports torch

    built = build_workspace(
        entity=config.entity,
        project=config.project,
        name=config.name,
        datasets=list(config.datasets),
        metrics=list(config.panels),
    )
    address = save_workspace(built)
    console = Console(highlight=False)
    for section in built.sections:
        console.print(f"  {escape(section.name)}: {counted(len(section.panels), 'panel')}")
    console.print(escape(address), soft_wrap=True)
