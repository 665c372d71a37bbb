"""The training loop: batches drawn as it goes, a rate that warms up and falls, checkpoints."""

import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.model import MiniClip
from experiments.mini_pretraining.objective import Weights, losses
from experiments.mini_pretraining.pictures import draw

log = logging.getLogger(__name__)


def rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: up linearly, level, down linearly over the last `decay`.

    >>> [rate(s, 100, 10, 0.5) for s in (0, 9, 50, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    left = (steps - step) / max(1.0, steps * decay)
    return max(0.0, min(1.0, (step + 1) / warmup, left))


class Pretraining:
    """The small CLIP's pretraining: goes on from a checkpoint where there is one.

    Batch and chance of a step depend on the seed and the step alone, so an interrupted run draws
    what an uninterrupted one would have.

    Args:
        recipe: The whole recipe; `clip` is read.
        folder: Where `clip.ckpt` is kept.
        device: Where pictures are drawn and the model is trained.
    """

    def __init__(self, recipe: dict[str, Any], folder: Path, device: str) -> None:
        self.recipe, self.settings = recipe, recipe["clip"]
        self.folder, self.device = folder, torch.device(device)
        torch.manual_seed(recipe["seed"])
        settings = self.settings
        self.model = MiniClip(settings["num_stream_blocks"], settings["correlation"])
        self.model.to(self.device).train()
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings["weight_decay"]},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings["learning_rate"],
            betas=tuple(settings["betas"]),
        )
        self.step, self.seconds = 0, 0.0
        self.weights = Weights(**settings["weights"])

    @property
    def checkpoint(self) -> Path:
        """The file that a later call goes on from."""
        return self.folder / "clip.ckpt"

    def run(self, steps: int, *, save_every: float = 120.0, log_every: int = 20) -> list[float]:
        """Train up to a step; returns the total loss of each step taken.

        Args:
            steps: The last step; the learning rate falls towards it.
            save_every: Seconds between checkpoints.
            log_every: Steps between log lines.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.is_file():
            self._load()
        totals: list[float] = []
        means: dict[str, float] = {}
        saved = began = time.monotonic()
        while self.step < steps:
            parts = self._step(steps)
            totals.append(float(parts["total"]))
            for name, part in parts.items():
                means[name] = 0.95 * means.get(name, float(part)) + 0.05 * float(part)
            now = time.monotonic()
            self.seconds, began = self.seconds + now - began, now
            if self.step % log_every == 0:
                shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
                log.info("step %d of %d, %.0f s: %s", self.step, steps, self.seconds, shown)
            if now - saved > save_every:
                self._save()
                saved = now
        self._save()
        return totals

    def _step(self, steps: int) -> dict[str, Tensor]:
        settings, seed = self.settings, self.recipe["seed"] * 1_000_003 + self.step
        share = rate(self.step, steps, settings["warmup"], settings["decay"])
        for group in self.optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * share
        generator = torch.Generator(self.device).manual_seed(seed)
        with torch.no_grad():
            drawn = draw(Canvas(self.recipe["image_size"], generator), settings["scenes"])
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            chance = random.Random(seed)
            parts = losses(self.model, drawn, self.weights, chance, settings["stream_share"])
        self.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings["clip_norm"])
        self.optimizer.step()
        self.step += 1
        return {name: part.detach() for name, part in parts.items()}

    def _save(self) -> None:
        state = {
            "model": self.model.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device)
        self.model.clip.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        log.info("going on from step %d", self.step)
