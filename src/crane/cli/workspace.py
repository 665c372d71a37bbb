"""`crane workspace`: a dashboard on Weights & Biases in one command."""

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from crane.errors import UsageError
from crane.reporting.tables import HEADINGS
from crane.training.wandb_workspace import build_workspace, save_workspace


def workspace(config: DictConfig) -> None:
    """Save the workspace, and print its sections and where it is.

    Raises:
        UsageError: Data sets that are no list, or a panel of no metric.
    """
    if not OmegaConf.is_list(config.datasets):
        raise UsageError(f"a list such as [{config.datasets}]", config.datasets, key="datasets")
    for metric in config.panels:
        if metric not in HEADINGS:
            raise UsageError(f"metrics out of {', '.join(HEADINGS)}", metric, key="panels")
    made = build_workspace(
        entity=config.entity,
        project=config.project,
        name=config.name,
        datasets=list(config.datasets),
        metrics=list(config.panels),
    )
    address = save_workspace(made)
    console = Console(highlight=False)
    for section in made.sections:
        console.print(f"  {escape(section.name)}: {len(section.panels)} panels")
    console.print(escape(address), soft_wrap=True)
