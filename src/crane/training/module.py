"""Crane as a LightningModule: training, validation and test steps."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning import LightningModule
from torch import Tensor, nn

from crane.data import CraneDataModule
from crane.data.dataset import OwnSizeDataset
from crane.errors import UsageError
from crane.methods import Detector
from crane.metrics import Curve, DatasetResult, Evaluation
from crane.types import Batch, Prediction, TokenBatch
from crane.views import Crop, View, cut, resized

logger = logging.getLogger(__name__)

NAN = math.nan
Evaluate = Callable[..., Evaluation]
"""From `class_names` to the metrics of one data set; takes its name and the images' names too."""


class CraneModule(LightningModule):
    """Trains the prompts of a Crane, and tests them on one data set after another.

    Works with `crane.data.CraneDataModule`. Logged names: `train/loss`, `train/focal`,
    `train/dice`, `train/image`; `epoch/…`, their means over each epoch, and `epoch/rate`;
    `val/METRIC` and `val/mean` on the held-out part of the source; `test/DATASET/METRIC` for means
    over classes.

    Args:
        model: The detector; only its prompts are trained.
        loss: The loss to minimise; None for a module that only tests.
        optimizer: From parameters to an optimizer; None likewise.
        evaluate: From the names of classes to metrics.
        seed: Seed for choosing, at each step, whether to use the image context.
        config: The model's configuration, stored in checkpoints.
        training: Facts that must not change when the training is resumed, stored there too.
        scheduler: From an optimizer to a scheduler of its rate, stepped once an epoch; None keeps
            the rate.
        view: How targets that are loaded at their own size are looked at; None if none are.
    """

    def __init__(
        self,
        model: Detector[Any, Any],
        loss: Callable[..., Any] | None,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        evaluate: Evaluate,
        *,
        seed: int,
        config: dict[str, Any],
        training: Mapping[str, Any] | None = None,
        scheduler: Callable[..., Any] | None = None,
        view: View | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.evaluate = evaluate
        self.seed = seed
        self.view = view
        self.config = config
        self.training_facts = dict(training or {})
        self.strict_loading = False  # checkpoints hold the prompts only; see on_load_checkpoint
        self.token_dtype = torch.float32
        """Type in which cached features were computed; they may be stored in a smaller one."""
        self._training_text: Any = None
        self._texts: list[Any] = []  # of each data set's classes, encoded once per pass
        self.evaluations = nn.ModuleList()
        self.results: tuple[DatasetResult, ...] = ()

    def configure_optimizers(self) -> Any:
        """Build the configured optimizer over what is learned, and its scheduler, if any."""
        optimizer = self._build_optimizer()
        if self.scheduler is None:
            return optimizer
        try:
            scheduler = self.scheduler(optimizer)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"the scheduler refuses its values: {error}", key="scheduler"
            ) from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def _build_optimizer(self) -> torch.optim.Optimizer:
        if self.optimizer is None:
            raise UsageError("training needs an optimizer", key="optimizer")
        try:
            return self.optimizer(self.model.trained.parameters())
        except (ValueError, TypeError) as error:  # a negative rate and the like
            raise UsageError(
                f"the optimizer refuses its values: {error}", key="optimizer"
            ) from error

    def forward(self, images: Tensor) -> Prediction:
        """Score images (B, 3, H, W) in [0, 1] and their pixels."""
        prediction: Prediction = self.model(images)
        return prediction

    def features(self, batch: Batch | TokenBatch) -> Any:
        """The frozen features of a batch: cached ones, or computed now."""
        if "image" in batch:
            return self.model.encode(cast(Batch, batch)["image"])
        size = (batch["mask"].shape[-2], batch["mask"].shape[-1])
        planes, global_ = batch["patches"].to(self.token_dtype), batch["global_"]
        return self.model.from_arrays(global_.to(self.token_dtype), planes, size)

    @property
    def _data(self) -> CraneDataModule:
        return cast(CraneDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Warn if there are no masks to learn locations from."""
        if not self._data.has_masks:
            if getattr(self.loss, "image_weight", 1.0) == 0.0:
                raise UsageError(
                    "the source has no masks, and this loss has no term without them; choose a "
                    "source with masks, or a loss.image_weight above 0 if images are learned from",
                    key="source",
                )
            logger.warning(
                "the source has no masks: the focal and Dice losses are off, and only the image "
                "loss trains the prompts; maps will localise less well"
            )
        names = self._data.source_class_names
        self._training_text = self.model.training_text(names)

    def training_step(self, batch: Batch | TokenBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch of the source."""
        if self.loss is None:
            raise UsageError("training needs a loss", key="loss")
        features, generator = self.features(batch), self._generator()
        losses = self.model.losses(self.loss, features, self._training_text, batch, generator)
        values = {"loss": losses.total, **losses._asdict()}
        del values["total"]
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in values.items()},
            prog_bar=True,
            batch_size=len(batch["label"]),
        )
        # Loggers keep every so many steps, of which a short epoch may have none.
        self.log_dict(
            {f"epoch/{name}": value.detach() for name, value in values.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch["label"]),
        )
        return losses.total

    def on_train_epoch_start(self) -> None:
        """Log the rate of the epoch."""
        rates = {group["lr"] for group in self.trainer.optimizers[0].param_groups}
        self.log("epoch/rate", float(max(rates)))

    def _generator(self) -> torch.Generator:
        """Random numbers of this step; the same on every process and when resumed."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Start the metrics of the held-out source."""
        names = self._data.source_class_names
        evaluation = self.evaluate(class_names=names)
        self.evaluations = nn.ModuleList([evaluation]).to(self.device)
        self._texts = [self.model.encode_classes(names)]

    def validation_step(self, batch: Batch | TokenBatch, batch_idx: int) -> None:
        """Evaluate a batch of the held-out source."""
        self._evaluate(batch, 0)

    def on_validation_epoch_end(self) -> None:
        """Log the means over classes; `val/mean` is that of image AUROC and AUPRO."""
        means = self._evaluation(0).compute().means
        chosen = [means[k] for k in ("image_auroc", "aupro") if not math.isnan(means.get(k, NAN))]
        mean = math.fsum(chosen) / len(chosen) if chosen else NAN
        self.log_dict({f"val/{name}": value for name, value in {**means, "mean": mean}.items()})

    def on_test_start(self) -> None:
        """Start the metrics of each target."""
        self.evaluations = nn.ModuleList(
            self.evaluate(
                class_names=index.class_names,
                dataset=name,
                names=[str(sample.image) for sample in index.samples],
            )
            for name, index in self._data.targets.items()
        ).to(self.device)
        indices = self._data.targets.values()
        self._texts = [self.model.encode_classes(index.class_names) for index in indices]

    def test_step(
        self, batch: Batch | TokenBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Evaluate a batch of a target; callbacks get the predictions."""
        return self._evaluate(batch, dataloader_idx)._asdict()

    def on_test_epoch_end(self) -> None:
        """Compute the results of every target, and log their means over classes."""
        self.results = tuple(
            self._evaluation(number).compute() for number in range(len(self.evaluations))
        )
        for result in self.results:
            self.log_dict({f"test/{result.dataset}/{k}": v for k, v in result.means.items()})

    def curves(self) -> dict[str, dict[str, list[Curve]]]:
        """Curves of each target tested, by kind, one a class; every process must call it."""
        targets = self._data.targets
        return {name: self._evaluation(number).curves() for number, name in enumerate(targets)}

    def scores(self) -> list[tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """Index and score of each image of each target; every process must call it."""
        targets = self._data.targets
        return [self._evaluation(number).scores() for number in range(len(targets))]

    def _evaluation(self, number: int) -> Evaluation:
        evaluation = self.evaluations[number]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    def _evaluate(self, batch: Batch | TokenBatch, number: int) -> Prediction:
        size = (batch["mask"].shape[-2], batch["mask"].shape[-1])
        if "own" in batch:
            prediction = self._viewed(batch, number)
            prediction = prediction._replace(map=resized(prediction.map, *size))
        else:
            features, text = self.features(batch), self._texts[number]
            prediction = self.model.predict(features, text, batch["class_id"], size)
        self._evaluation(number).update(
            prediction.score.float(),
            prediction.map.float(),
            batch["label"],
            batch["mask"],
            batch["has_mask"],
            batch["class_id"],
            batch["index"],
            labelled=True,
        )
        return prediction

    def _viewed(self, batch: Any, number: int) -> Prediction:
        """The prediction of one image at its own size, through the crops of the view."""
        assert self.view is not None
        images = cast(OwnSizeDataset, self._data.target(number))
        key = images.index.key(images.index.samples[int(batch["index"])])

        def score(crops: Sequence[Crop], size: tuple[int, int]) -> Prediction:
            class_id = batch["class_id"].expand(len(crops))
            features: Any
            if images.tokens is None:
                pixels = cut(batch["native"][0].numpy(), crops, images.resizer)
                features = self.model.encode(pixels.to(self.device))
            else:
                rows = zip(*(images.tokens(key, crop) for crop in crops), strict=True)
                global_, planes = (
                    torch.stack(row).to(self.device, self.token_dtype) for row in rows
                )
                side = crops[0].side
                features = self.model.from_arrays(global_, planes, (side, side))
            return self.model.predict(features, self._texts[number], class_id, size)

        height, width = batch["own"][0].tolist()
        side, batch_size = images.image_size, self._data.test_batch_size
        return self.view.predict(height, width, side, batch_size, score)

    @property
    def _prefix(self) -> str:
        return f"model.{self.model.LEARNED}."

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store prompts and configuration only; the frozen towers come from their own files."""
        state, prefix = checkpoint["state_dict"], self._prefix
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith(prefix)}
        checkpoint["crane"] = {
            "config": json.dumps(self.config),
            "training": json.dumps(self.training_facts),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse checkpoints with other prompt shapes, without a state, or from mid-epoch."""
        learned = self.model.trained.state_dict()
        wanted = {self._prefix + name: tuple(value.shape) for name, value in learned.items()}
        found = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        if found != wanted:
            raise UsageError(
                f"the checkpoint's prompts have the shapes {found}, not those of this training, "
                f"{wanted}",
                key="resume",
            )
        try:
            loop = checkpoint["loops"]["fit_loop"]
            epochs = loop["epoch_progress"]["current"]
            num_done, num_completed = epochs["processed"], epochs["completed"]
            is_last_batch = loop["epoch_loop.batch_progress"]["is_last_batch"]
            _ = checkpoint["lr_schedulers"]
            self._build_optimizer().load_state_dict(checkpoint["optimizer_states"][0])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise UsageError(
                f"the checkpoint cannot be resumed: {reason}; take the "
                "checkpoints/last.ckpt that a training wrote",
                key="resume",
            ) from error
        limit = self.trainer.max_epochs
        if limit is not None and 0 < limit < num_done:
            raise UsageError(
                f"must be at least {num_done}, the epochs that the checkpoint has, not {limit}",
                key="trainer.max_epochs",
            )
        if num_done > num_completed and not is_last_batch:
            # Lightning would count the epoch as done and skip the rest of its images.
            raise UsageError(
                "the checkpoint is from the middle of an epoch, which trainer.max_steps cut short; "
                "only whole epochs can be resumed",
                key="resume",
            )
