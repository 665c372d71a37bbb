"""Crane as a LightningModule: what a step, a validation and a test are."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning import LightningModule
from torch import Tensor, nn

from crane.data import CraneDataModule
from crane.errors import UsageError
from crane.methods import Crane, CraneLoss
from crane.methods.checkpoint import PROMPTS
from crane.metrics import Curve, DatasetResult, Evaluation
from crane.types import Batch, Prediction, TokenBatch, VisionTokens

logger = logging.getLogger(__name__)

NAN = math.nan
Evaluate = Callable[..., Evaluation]
"""`class_names` to the metrics of one data set; takes its name and the images' names too."""


class CraneModule(LightningModule):
    """Trains the prompts of a Crane, and tests them on one data set after another.

    Works with `crane.data.CraneDataModule`. Logged names: `train/loss`, `train/focal`,
    `train/dice`, `train/image`; `val/METRIC` and `val/mean` on the held-out part of the source;
    `test/DATASET/METRIC` for means over classes.

    Args:
        model: The detector; only its prompts are trained.
        loss: What is minimised; None for a module that only tests.
        optimizer: From parameters to an optimizer; likewise.
        evaluate: From class names to metrics.
        seed: Of the decision, step by step, whether the image context is used.
        config: The model's configuration, which checkpoints carry.
        training: What must be the same for a training to go on, which checkpoints carry too.
    """

    def __init__(
        self,
        model: Crane,
        loss: CraneLoss | None,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        evaluate: Evaluate,
        *,
        seed: int,
        config: dict[str, Any],
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.evaluate = evaluate
        self.seed = seed
        self.config = config
        self.training_facts = dict(training or {})
        self.strict_loading = False  # checkpoints hold the prompts only; see on_load_checkpoint
        self.token_dtype = torch.float32
        """What cached features were computed in; they may be stored smaller."""
        self._text: Tensor | None = None  # static prompts, encoded once a test or validation
        self.evaluations = nn.ModuleList()
        self.results: tuple[DatasetResult, ...] = ()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the prompts, as published."""
        if self.optimizer is None:
            raise UsageError("an optimizer", self.optimizer, key="optimizer")
        try:
            return self.optimizer(self.model.prompts.parameters())
        except ValueError as error:  # a rate below 0 and the like
            raise UsageError(
                "values that the optimizer takes", str(error), key="optimizer"
            ) from error

    def forward(self, images: Tensor) -> Prediction:
        """Score images (B, 3, H, W) in [0, 1] and their pixels."""
        prediction: Prediction = self.model(images)
        return prediction

    def tokens(self, batch: Batch | TokenBatch) -> VisionTokens:
        """What the frozen towers say about a batch: cached, or seen now."""
        if "image" in batch:
            tokens: VisionTokens = self.model.vision(cast(Batch, batch)["image"])
            return tokens
        patches = batch["patches"].to(self.token_dtype).transpose(0, 1)
        grid = (patches.shape[2], patches.shape[3])
        return VisionTokens(batch["global_"].to(self.token_dtype), patches.flatten(2, 3), grid)

    @property
    def _data(self) -> CraneDataModule:
        return cast(CraneDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Say so when there is nothing to learn places from."""
        if not self._data.has_masks:
            logger.warning(
                "the source has no masks: the focal and Dice losses are off, and only the image "
                "loss trains the prompts; maps will localise less well"
            )

    def training_step(self, batch: Batch | TokenBatch, batch_idx: int) -> Tensor:
        """One step on a batch of the source."""
        if self.loss is None:
            raise UsageError("a loss", self.loss, key="loss")
        tokens = self.tokens(batch)
        text = self.model.encode_prompts(tokens, with_context=self._draw_context())
        losses = self.loss(
            self.model,
            tokens,
            text,
            mask=batch["mask"],
            has_mask=batch["has_mask"],
            label=batch["label"],
        )
        values = {"loss": losses.total, **losses._asdict()}
        del values["total"]
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in values.items()},
            prog_bar=True,
            batch_size=len(batch["label"]),
        )
        return losses.total

    def _draw_context(self) -> bool:
        """Whether this step uses the image context: the same on every process and on resuming."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        draw = torch.rand((), generator=generator).item()
        return draw < self.model.prompts.context_in_training

    def on_validation_epoch_start(self) -> None:
        """Begin the metrics of the held-out source."""
        evaluation = self.evaluate(class_names=self._data.source_class_names)
        self.evaluations = nn.ModuleList([evaluation]).to(self.device)
        self._text = self.model.static_text()

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
        """Begin the metrics of each target."""
        self.evaluations = nn.ModuleList(
            self.evaluate(
                class_names=index.class_names,
                dataset=name,
                names=[str(sample.image) for sample in index.samples],
            )
            for name, index in self._data.targets.items()
        ).to(self.device)
        self._text = self.model.static_text()

    def test_step(
        self, batch: Batch | TokenBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Evaluate a batch of a target; what is returned reaches the callbacks."""
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
        prediction = self.model.judge(self.tokens(batch), size, self._text)
        self._evaluation(number).update(
            prediction.score.float(),
            prediction.map.float(),
            batch["label"],
            batch["mask"],
            batch["has_mask"],
            batch["class_id"],
            batch["index"],
        )
        return prediction

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the prompts and the configuration; the towers are frozen and come from elsewhere."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith(PROMPTS)}
        checkpoint["crane"] = {
            "config": json.dumps(self.config),
            "training": json.dumps(self.training_facts),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that cannot be gone on from: of other prompts, of half an epoch."""
        wanted = {PROMPTS + k: tuple(v.shape) for k, v in self.model.prompts.state_dict().items()}
        came = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        if came != wanted:
            raise UsageError(f"a checkpoint with {wanted}", f"one with {came}", key="resume")
        loop = checkpoint["loops"]["fit_loop"]
        epochs = loop["epoch_progress"]["current"]
        num_done, limit = epochs["processed"], self.trainer.max_epochs
        if limit is not None and 0 < limit < num_done:
            raise UsageError(
                f"at least the {num_done} epochs that the checkpoint has",
                limit,
                key="trainer.max_epochs",
            )
        is_ending = epochs["processed"] > epochs["completed"]
        if is_ending and not loop["epoch_loop.batch_progress"]["is_last_batch"]:
            # Lightning would call the epoch done and leave out the rest of its images.
            raise UsageError(
                "a checkpoint from the end of an epoch",
                "one of an epoch that trainer.max_steps cut short",
                key="resume",
            )
