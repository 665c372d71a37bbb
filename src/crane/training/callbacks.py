"""What happens beside training and testing: prompts kept, pictures made."""

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from crane.data import Index
from crane.errors import UsageError
from crane.methods import save_prompts
from crane.pictures import (
    CURVES,
    GALLERY,
    SCORES,
    GalleryKeeper,
    OverlayWriter,
    Panel,
    PanelStyle,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.training.module import CraneModule
from crane.training.watching import ImageWatcher

logger = logging.getLogger(__name__)


class KeepPrompts(Callback):
    """Writes the prompts of every epoch to `epoch_N.safetensors`, N counting from 1.

    Args:
        folder: Where they go.
        monitor: The validation value that decides which epoch is best.
        sources: Fingerprint of each source data set, kept beside the prompts.
        earlier: Where the training that is resumed, if one is, kept its prompts.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        sources: Mapping[str, str],
        earlier: Path | None = None,
    ) -> None:
        self.folder, self.monitor, self.sources = folder, monitor, dict(sources)
        self.earlier = earlier
        self.values: dict[int, float] = {}
        """The monitored value of each epoch, NaN where it was not measured."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the prompts of the resumed epochs here, so that each of them can be chosen."""
        if self.earlier is None or not trainer.is_global_zero:
            return
        if self.earlier.resolve() == self.folder.resolve():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for epoch in self.values:
            name = self.path(epoch).name
            if (self.earlier / name).is_file():
                shutil.copyfile(self.earlier / name, self.folder / name)
            else:
                logger.warning("no %s in %s: that epoch cannot be chosen", name, self.earlier)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this epoch's prompts; validation has run by now."""
        assert isinstance(pl_module, CraneModule)
        epoch = trainer.current_epoch + 1
        if not all(p.isfinite().all() for p in pl_module.model.prompts.parameters()):
            raise UsageError(
                "prompts of finite numbers",
                f"NaN or infinity after epoch {epoch}",
                key="optimizer.lr or trainer.precision",
            )
        measured = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
        if measured and self.monitor not in measured:
            raise UsageError(f"one of {', '.join(sorted(measured))}", self.monitor, key="monitor")
        self.values[epoch] = measured.get(self.monitor, math.nan)
        if trainer.is_global_zero:
            info = {
                "epoch": epoch,
                "step": trainer.global_step,
                "sources": self.sources,
                "validation": measured,
            }
            save_prompts(self.path(epoch), pl_module.model, pl_module.config, info)

    def path(self, epoch: int) -> Path:
        """The file of an epoch's prompts."""
        return self.folder / f"epoch_{epoch}.safetensors"

    def check_choice(self, epoch: int | str, num_epochs: int, num_validation: int) -> None:
        """Refuse, before any training, a choice that cannot be met.

        Args:
            epoch: `last`, `best` or a number.
            num_epochs: How many will be trained.
            num_validation: Held-out images of the source.

        Raises:
            UsageError: There will be no such epoch, or nothing to say which is best.
        """
        if num_epochs == 0:
            raise UsageError("at least one epoch", 0, key="trainer.max_epochs")
        if epoch == "best" and num_validation == 0:
            raise UsageError(
                "a held-out part of the source to choose the best epoch on",
                "none",
                key="data.validation_fraction or epoch",
            )
        is_number = isinstance(epoch, int) and 1 <= epoch <= num_epochs
        if epoch not in ("last", "best") and not is_number:
            raise UsageError(f"last, best or an epoch from 1 to {num_epochs}", epoch, key="epoch")

    def choose(self, epoch: int | str, last: int) -> Path:
        """The file of the epoch asked for.

        Args:
            epoch: `last`, `best` (by the monitored value, the earliest of equals) or a number.
            last: The last epoch trained.

        Raises:
            UsageError: Nothing says which is best, or no epoch was trained to its end.
        """
        if last == 0:
            raise UsageError(
                "at least one epoch to its end",
                "none",
                key="trainer.limit_train_batches or trainer.max_steps",
            )
        if epoch != "best":
            return self.path(last if epoch == "last" else int(epoch))
        finite = {number: v for number, v in self.values.items() if not math.isnan(v)}
        if not finite:
            raise UsageError(
                f"a value of {self.monitor} for at least one epoch", self.values, key="monitor"
            )
        return self.path(max(finite, key=lambda number: finite[number]))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to choose as if it had not stopped."""
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.values = dict(state_dict["values"])


class DrawOverlays(ImageWatcher):
    """Draws some test images of each target with their maps, on one fixed colour scale.

    On several processes, the pictures are of the images that the first one tested.

    Args:
        folder: A folder a data set is made in it.
        targets: The data sets, in the order of their loaders.
        style: Colours and sizes.
        choose: Which images: `random`, `best` or `worst`.
        num_anomalous: Anomalous images a class.
        num_normal: Normal images a class.
        num_columns: Panels side by side in a data set's gallery.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Index],
        *,
        style: PanelStyle,
        choose: str,
        num_anomalous: int,
        num_normal: int,
        num_columns: int,
    ) -> None:
        super().__init__()
        self.indices = list(targets.values())
        self.writers = [
            OverlayWriter(
                folder / name,
                title=name,
                style=style,
                choose=choose,
                num_anomalous=num_anomalous,
                num_normal=num_normal,
                num_columns=num_columns,
            )
            for name in targets
        ]
        self.style = style
        self.names = tuple(targets)
        self.files: list[Path] = []
        self.panels: dict[str, list[Panel]] = {}
        """What the pictures of each target show, once the test is over."""

    def look(self, target: int, index: int, score: float, map: Tensor, mask: Tensor | None) -> None:
        """Offer an image to the writer of its data set."""
        self.writers[target].add(self.indices[target].samples[index], score, map, mask)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if trainer.is_global_zero:
            writers = dict(zip(self.names, self.writers, strict=True))
            self.panels = {name: list(w.panels().values()) for name, w in writers.items()}
            self.files = [file for writer in self.writers for file in writer.close()]


class KeepFindings(ImageWatcher):
    """Leaves what reports show beside the numbers: curves, the score of each image, pictures.

    Curves and scores are of all processes; on several, pictures are of the images that the first
    one tested.

    Args:
        folder: Of the run.
        targets: The data sets, in the order of their loaders.
        style: Colours and sizes of the pictures.
        num_anomalous: Anomalous images a class, each of the best, the worst and random ones.
        num_normal: Normal images a class, likewise.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Index],
        *,
        style: PanelStyle,
        num_anomalous: int,
        num_normal: int,
    ) -> None:
        super().__init__()
        self.folder, self.targets, self.style = folder, dict(targets), style
        self.keepers = [
            GalleryKeeper(name, style=style, num_anomalous=num_anomalous, num_normal=num_normal)
            for name in targets
        ]

    def look(self, target: int, index: int, score: float, map: Tensor, mask: Tensor | None) -> None:
        """Offer an image."""
        keeper = self.keepers[target]
        keeper.add(self.targets[keeper.dataset].samples[index], score, map, mask)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        assert isinstance(pl_module, CraneModule)
        curves, scores = pl_module.curves(), pl_module.scores()  # of all processes
        if not trainer.is_global_zero:
            return
        classes = {name: index.class_names for name, index in self.targets.items()}
        write_curves(curves, classes, self.folder / CURVES)
        named = zip(self.targets.items(), scores, strict=True)
        write_scores(
            ((name, index.samples, *found) for (name, index), found in named),
            self.folder / SCORES,
        )
        gallery = self.folder / GALLERY
        pictures = [picture for keeper in self.keepers for picture in keeper.close(gallery)]
        write_gallery(pictures, self.style, gallery)
