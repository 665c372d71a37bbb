"""`crane demo`: Crane and Crane+ trained on one embedded domain, tested on domains never seen."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane import training
from crane.config import compose
from crane.files import shown_path as shown
from crane.runs import mean_table
from crane.training import RunSummary, own_processes


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
        *(f"  {escape(shown(path))}" for path in galleries),
        f"  {escape(shown(last.folder / 'results.csv'))}  per class and mean, for each target",
        "",
        "[bold]Then[/bold]",
        f"  crane predict checkpoint='{escape(shown(last.checkpoint))}' input=YOUR_IMAGES",
        "  crane weights method=crane_plus      what a real run needs, and where it comes from",
        "  crane train --help                   every group and option",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
