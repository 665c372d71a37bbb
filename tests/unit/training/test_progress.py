"""The progress bar reads values back only now and then."""

from unittest.mock import Mock

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from crane.training.callbacks import ProgressBar


def test_values_are_read_as_often_as_loggers_read_them(monkeypatch):
    read = []
    monkeypatch.setattr(
        RichProgressBar, "get_metrics", lambda *args: read.append(len(read)) or {"loss": len(read)}
    )
    bar = ProgressBar(5)
    trainer, module = Mock(spec=Trainer, training=True), Mock(spec=LightningModule)
    shown = []
    for trainer.global_step in range(1, 12):
        shown.append(bar.get_metrics(trainer, module)["loss"])
    assert shown == [1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]
    trainer.training = False
    assert [bar.get_metrics(trainer, module)["loss"] for _ in range(2)] == [4, 5]
