"""The progress bar of trainings and tests."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar, which reads values back from a GPU only as often as loggers do.

    Reading them after each step would hold every step up until the GPU has finished it.

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
