"""Looking at each image while a test runs, without making a GPU wait."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from crane.types import Prediction, Truth


class ImageWatcher(Callback):
    """Calls `look` with each image that the first process tests, a batch behind.

    By then a batch's scores have arrived, so that reading them holds nothing up.
    """

    def __init__(self) -> None:
        self._arriving: _Arriving | None = None

    @abstractmethod
    def look(self, target: int, index: int, score: float, map: Tensor, mask: Tensor | None) -> None:
        """Look at an image.

        Args:
            target: The number of its data set.
            index: Its number there.
            score: Its anomaly score.
            map: Its anomaly probabilities (H, W), on the model's device.
            mask: 0 where normal (H, W), likewise; None where not known.
        """

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Truth,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the batch before, and let this one arrive."""
        if trainer.is_global_zero:
            self._look()
            self._arriving = _Arriving(outputs, batch, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last batch."""
        self._look()

    def _look(self) -> None:
        if self._arriving is not None:
            for image in self._arriving.images():
                self.look(*image)
        self._arriving = None


class _Arriving:
    """What is known of a batch, on its way from the device."""

    def __init__(self, outputs: Mapping[str, Any], batch: Truth, target: int) -> None:
        self.prediction, self.mask, self.target = Prediction(**outputs), batch["mask"], target
        score = self.prediction.score
        facts = torch.stack([batch["index"].double(), batch["has_mask"].double(), score.double()])
        self.event: torch.cuda.Event | None = None
        if facts.is_cuda:
            self.facts = facts.to("cpu", non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()
        else:
            self.facts = facts.cpu()

    def images(self) -> list[tuple[int, int, float, Tensor, Tensor | None]]:
        if self.event is not None:
            self.event.synchronize()
        return [
            (
                self.target,
                int(index),
                score,
                self.prediction.map[place].float(),
                self.mask[place] if has_mask else None,
            )
            for place, (index, has_mask, score) in enumerate(self.facts.T.tolist())
        ]
