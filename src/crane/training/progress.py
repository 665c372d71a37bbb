"""The progress bar of trainings and tests."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar, which reads values back from a GPU only as often as loggers do.

    Reading them after each step would hold every step up until the GPU has finished it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The values shown: new ones every `trainer.log_every_n_steps` steps."""
        is_between = trainer.training and trainer.global_step % max(1, trainer.log_every_n_steps)
        if not is_between or not self._values:
            self._values = super().get_metrics(trainer, pl_module)
        return self._values
