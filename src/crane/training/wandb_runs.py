"""What Weights & Biases shows of a run beside its scalars: tables, curves, pictures, prompts."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from crane.metrics import Curve
from crane.pictures import Panel, PanelStyle, heat_map
from crane.runs import DatasetResult
from crane.training.callbacks import DrawOverlays
from crane.training.module import CraneModule

NUM_POINTS = 200
"""Points of a curve that is shown; W&B draws them in the browser."""


class LogToWandb(Callback):
    """Sends what a test found to W&B, where that is the logger: see docs/wandb.md for the keys.

    Args:
        draw: Its pictures are sent too; must come before this callback.
    """

    def __init__(self, draw: DrawOverlays) -> None:
        self.draw = draw

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send tables, curves and pictures of every target."""
        if not isinstance(trainer.logger, WandbLogger):
            return
        assert isinstance(pl_module, CraneModule)
        curves = pl_module.curves()  # of all processes, so every one asks
        if not trainer.is_global_zero:
            return
        content: dict[str, Any] = {}
        for result in pl_module.results:
            name = result.dataset
            content[f"results/{name}"] = _table(result)
            for kind, lines in curves[name].items():
                if chart := _chart(kind, lines, result.class_names):
                    content[f"curves/{name}/{kind}"] = chart
            if panels := self.draw.panels.get(name):
                content[f"images/{name}"] = _images(panels, self.draw.style)
        trainer.logger.experiment.log(content)


def log_prompts(run_logger: Logger | None, prompts: Path, facts: Mapping[str, Any]) -> None:
    """Keep learned prompts as an artifact of a W&B run; other loggers have none.

    Args:
        run_logger: Of the trainer.
        prompts: The file.
        facts: What the artifact says about it.
    """
    if not isinstance(run_logger, WandbLogger):
        return
    import wandb  # a second that other runs need not wait

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
    """A line a class; None where no class has the curve."""
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


def _images(panels: Sequence[Panel], style: PanelStyle) -> list[Any]:
    """Each image with its true region as a mask that can be switched, then its map."""
    import wandb

    images = []
    for panel in panels:
        small = panel.shrunk(style.tile)
        caption = f"{panel.caption}, score {panel.score:.3f}"
        masks = None
        if small.mask is not None:
            truth = {"mask_data": small.mask.astype("uint8"), "class_labels": {1: "anomalous"}}
            masks = {"truth": truth}
        images.append(wandb.Image(small.image, caption=caption, masks=masks))
        images.append(wandb.Image(heat_map(small.map, style.scale), caption=f"map: {caption}"))
    return images
