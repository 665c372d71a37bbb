"""Lightning callbacks: prompts of each epoch, files of a test, the progress bar."""

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from crane.checks import one_of, shown
from crane.data import Index
from crane.errors import UsageError
from crane.files import file_names
from crane.methods import save_prompts
from crane.pictures import (
    CURVES,
    GALLERY,
    SCORES,
    Gallery,
    OverlayOptions,
    Panel,
    Picture,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.runs import write_results_csv, write_results_json
from crane.training.module import CraneModule
from crane.types import HostCopy, Prediction, Truth

logger = logging.getLogger(__name__)


class KeepPrompts(Callback):
    """Writes the prompts of every epoch to `epoch_N.safetensors`, N counting from 1.

    Args:
        folder: Where they are written.
        monitor: The validation value that decides which epoch is best.
        sources: Fingerprint of each source data set, stored with the prompts.
        earlier: Prompts folder of the training that is resumed, if one is.
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
        """Copy the prompts of the resumed epochs, so that each of them can be chosen."""
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
        """Write the prompts of this epoch; validation has already run."""
        assert isinstance(pl_module, CraneModule)
        epoch = trainer.current_epoch + 1
        if not all(p.isfinite().all() for p in pl_module.model.trained.parameters()):
            raise UsageError(
                f"the prompts hold NaN or infinity after epoch {epoch}; "
                "lower optimizer.lr or use another trainer.precision",
                key="optimizer.lr",
            )
        measured = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
        if measured:
            one_of(self.monitor, sorted(measured), "validation value", "monitor")
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
        """The file of the prompts of an epoch."""
        return self.folder / f"epoch_{epoch}.safetensors"

    def check_choice(self, epoch: int | str, num_epochs: int, num_validation: int) -> None:
        """Check before training that the epoch asked for will exist.

        Args:
            epoch: `last`, `best` or a number.
            num_epochs: Epochs that will be trained.
            num_validation: Held-out images of the source.

        Raises:
            UsageError: There will be no such epoch, or no validation to decide which is best.
        """
        if epoch == "best" and num_validation == 0:
            raise UsageError(
                "epoch=best needs a held-out part of the source; set data.validation_fraction",
                key="epoch",
            )
        is_number = isinstance(epoch, int) and 1 <= epoch <= num_epochs
        if epoch not in ("last", "best") and not is_number:
            raise UsageError(
                f"must be last, best or a number from 1 to {num_epochs}, not {shown(epoch)}",
                key="epoch",
            )

    def choose(self, epoch: int | str, last: int) -> Path:
        """The file of the epoch asked for.

        Args:
            epoch: `last`, `best` (by the monitored value, the earliest of equals) or a number.
            last: The last epoch trained.

        Raises:
            UsageError: No validation decides which is best, or no epoch was completed.
        """
        if last == 0:
            raise UsageError(
                "no epoch was completed, so there are no prompts; raise "
                "trainer.limit_train_batches or trainer.max_steps",
                key="trainer.limit_train_batches",
            )
        if epoch != "best":
            return self.path(last if epoch == "last" else int(epoch))
        finite = {number: v for number, v in self.values.items() if not math.isnan(v)}
        if not finite:
            raise UsageError(
                f"epoch=best needs a value of {self.monitor}, which no epoch has; "
                "choose another monitor",
                key="monitor",
            )
        return self.path(max(finite, key=lambda number: finite[number]))

    def state_dict(self) -> dict[str, Any]:
        """The monitored values, from which a resumed training chooses the best epoch."""
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the monitored values of the epochs before."""
        self.values = dict(state_dict["values"])


class WriteTestResults(Callback):
    """Writes what a test leaves in the folder of its run: results, curves, scores and pictures.

    Results are written first, so that nothing that happens to a picture can cost them. Numbers are
    those of all processes; pictures show images that the first process tested.

    Args:
        folder: Folder of the run.
        targets: The data sets, in the order of their loaders.
        options: Which images are drawn, and how.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Index], options: OverlayOptions) -> None:
        self.folder, self.targets, self.options = folder, dict(targets), options
        self.galleries = [
            Gallery(name, options, white_level=index.white_level) for name, index in targets.items()
        ]
        self.files: list[Path] = []
        """The overlays written."""
        self.panels: dict[str, list[Panel]] = {}
        """What the overlays of each target show, once the test is over."""
        self._copied: _CopiedBatch | None = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Truth,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Consider the images of the previous batch, whose scores have reached the host by now."""
        if trainer.is_global_zero:
            self._consider()
            self._copied = _copied(Prediction(**outputs), batch, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Consider the images of the last batch."""
        self._consider()

    def _consider(self) -> None:
        if (batch := self._copied) is None:
            return
        self._copied = None
        gallery = self.galleries[batch.target]
        samples = self.targets[gallery.dataset].samples
        (facts,) = batch.facts.wait()
        for row, (index, score) in enumerate(facts.T.tolist()):
            mask = batch.mask[row] if batch.has_mask[row] else None
            gallery.add(samples[int(index)], score, batch.map[row].float(), mask)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything."""
        assert isinstance(pl_module, CraneModule)
        if trainer.is_global_zero:
            write_results_csv(pl_module.results, self.folder / "results.csv")
            write_results_json(pl_module.results, self.folder / "results.json")
        curves, scores = pl_module.curves(), pl_module.scores()  # every process takes part
        if not trainer.is_global_zero:
            return
        classes = {name: index.class_names for name, index in self.targets.items()}
        write_curves(curves, classes, self.folder / CURVES)
        found = [
            (name, index.samples, *numbers)
            for (name, index), numbers in zip(self.targets.items(), scores, strict=True)
        ]
        write_scores(found, self.folder / SCORES)
        self._write_pictures()

    def _write_pictures(self) -> None:
        self.panels = {g.dataset: [one.panel for one in g.overlays()] for g in self.galleries}
        folders = file_names(self.targets)
        pictures: list[Picture] = []
        for gallery in self.galleries:
            places = [self.folder / top / folders[gallery.dataset] for top in ("overlays", GALLERY)]
            written = gallery.write(*places)
            self.files += written.overlays
            pictures += written.pictures
        write_gallery(pictures, self.options.scale, self.folder / GALLERY)


class _CopiedBatch(NamedTuple):
    """A tested batch; what decides which of its images are kept is copied to the host."""

    target: int
    """Position of the data set."""
    facts: HostCopy
    """Index and score of each image."""
    has_mask: list[bool]
    map: Float[Tensor, "B H W"]
    mask: Int[Tensor, "B H W"]


def _copied(prediction: Prediction, batch: Truth, target: int) -> _CopiedBatch:
    columns = (batch["index"], prediction.score)
    facts = HostCopy(torch.stack([column.double() for column in columns]))
    return _CopiedBatch(target, facts, batch["has_mask"].tolist(), prediction.map, batch["mask"])


class ProgressBar(RichProgressBar):
    """Lightning's bar, which reads values back from a GPU only as often as loggers do.

    Lightning reads them after each step, which waits until the GPU has finished it.

    Args:
        every: Steps between new values.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every = max(1, every)
        self._values: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The values shown."""
        is_between = trainer.training and trainer.global_step % self._every
        if not is_between or not self._values:
            self._values = super().get_metrics(trainer, pl_module)
        return self._values
