"""Training loop of the small CLIP: stages, batches drawn on the fly, schedules, checkpoints."""

import logging
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from crane.attention import GuidedAttention
from crane.errors import UsageError
from crane.files import replacing
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.export import export
from experiments.mini_pretraining.model import MiniClip, small_guide
from experiments.mini_pretraining.objective import Weights, losses
from experiments.mini_pretraining.pictures import (
    Drawn,
    draw,
    scattered,
    segment_features,
    window,
)

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What a step learns from."""

    drawn: Drawn
    kept: Int[Tensor, "M N"] | None
    """Indices of the patches used from each picture; None uses all."""
    segments: Float[Tensor, "M C h w"] | None
    """Features of the drawn segments, for D-Attn in a guide's place."""


def rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor of the peak learning rate: linear warm-up, constant, linear decay at the end.

    Args:
        step: Step from 0.
        steps: Number of steps.
        warmup: Steps of the warm-up.
        decay: Fraction of the steps over which the rate decays to 0.

    >>> [rate(s, 100, 10, 0.5) for s in (0, 9, 50, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    left = (steps - step) / max(1.0, steps * decay)
    return max(0.0, min(1.0, (step + 1) / warmup, left))


def optimizers(
    model: nn.Module, settings: dict[str, Any], stage: dict[str, Any]
) -> list[Optimizer]:
    """AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest.

    Args:
        model: The open_clip model.
        settings: The part `clip` of the recipe.
        stage: One of its stages.
    """
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "resblocks" in name]
    decayed = [p for name, p in named if p.ndim > 1 and not (p.ndim == 2 and "resblocks" in name)]
    others = [p for name, p in named if p.ndim <= 1]
    shared = {"lr": stage["learning_rate"], "weight_decay": settings["weight_decay"]}
    chosen: list[Optimizer] = []
    if stage["optimizer"] == "muon":
        chosen.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **shared))
    else:
        decayed += matrices
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [*chosen, AdamW(groups, betas=tuple(settings["betas"]), **shared)]


class Pretraining:
    """Pretraining of the small CLIP; resumes from its checkpoint if there is one.

    Batch and random state of a step depend only on seed, stage and step, so a resumed run draws the
    same batches as an uninterrupted one.

    Args:
        recipe: The whole recipe; only `clip` and `seed` are used.
        folder: Folder of `clip.ckpt`.
        device: Device for drawing and training.
    """

    def __init__(self, recipe: dict[str, Any], folder: Path, device: str) -> None:
        self.recipe, self.settings = recipe, recipe["clip"]
        self.folder, self.device = folder, torch.device(device)
        torch.manual_seed(recipe["seed"])
        self.model = MiniClip(self.settings["num_stream_blocks"], self.settings["correlation"])
        if self.settings["start"] == "embedded":
            self.model.load_embedded()
        self.model.to(self.device).train()
        self.stage, self.step, self.seconds = 0, 0, 0.0
        self.drawing_thread = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        self.prefetched: tuple[tuple[int, int], Future[Batch]] | None = None
        self.optimizers: list[Optimizer] = []

    @property
    def checkpoint(self) -> Path:
        """The file from which a later call resumes."""
        return self.folder / "clip.ckpt"

    def run(self, *, save_every: float = 120.0, log_every: int = 20) -> list[float]:
        """Train to the end of the last stage; returns the total loss of each step of this call.

        Args:
            save_every: Seconds between checkpoints.
            log_every: Steps between log lines.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stages = self.settings["stages"]
        if self.checkpoint.is_file():
            self._load(stages)
        totals: list[float] = []
        while self.stage < len(stages):
            if not self.optimizers:
                self.optimizers = optimizers(self.model.clip, self.settings, stages[self.stage])
            totals += self._run_stage(stages[self.stage], save_every, log_every)
            self.stage, self.step, self.optimizers = self.stage + 1, 0, []
            self._average()
            self._save()
        return totals

    def _average(self) -> None:
        """Save the weights after each stage in `averaged`; after the last one load their mean."""
        averaged = self.settings["averaged"]
        if self.stage not in averaged:
            return
        torch.save(self.model.clip.state_dict(), self._after(self.stage))
        if self.stage == averaged[-1]:
            states = [torch.load(self._after(n), map_location=self.device) for n in averaged]
            mean = {name: sum(s[name] for s in states) / len(states) for name in states[0]}
            self.model.clip.load_state_dict(mean)

    def _after(self, stage: int) -> Path:
        return self.folder / f"clip_after_{stage}.pt"

    def _run_stage(self, stage: dict[str, Any], save_every: float, log_every: int) -> list[float]:
        totals: list[float] = []
        means: dict[str, float] = {}
        saved = started = time.monotonic()
        while self.step < stage["steps"]:
            parts = self._step(stage)
            totals.append(float(parts["total"]))
            for name, part in parts.items():
                means[name] = 0.95 * means.get(name, float(part)) + 0.05 * float(part)
            now = time.monotonic()
            self.seconds, started = self.seconds + now - started, now
            if self.step % log_every == 0:
                shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
                log.info(
                    "stage %d, step %d of %d, %.0f s: %s",
                    self.stage + 1,
                    self.step,
                    stage["steps"],
                    self.seconds,
                    shown,
                )
            if now - saved > save_every:
                self._save()
                saved = now
        return totals

    def _step(self, stage: dict[str, Any]) -> dict[str, Tensor]:
        factor = rate(self.step, stage["steps"], stage["warmup"], stage["decay"])
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = stage["learning_rate"] * factor
        batch = self._batch(stage)
        weights, rng = Weights(**stage["weights"]), random.Random(self._seed(self.step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
            guide = None if stage["guide"] == "none" else partial(self._correlations, batch)
            share = stage["stream_share"]
            parts = losses(self.model, batch.drawn, weights, rng, share, batch.kept, guide)
        self.model.zero_grad(set_to_none=True)
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["clip_norm"])
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return {name: part.detach() for name, part in parts.items()}

    @cached_property
    def _attention(self) -> GuidedAttention:
        """D-Attn as configured in conf/guide/mini.yaml."""
        return small_guide("random")[1]

    @cached_property
    def _guide(self) -> nn.Module:
        """The pretrained small guide."""
        checkpoint = self.folder / "guide.ckpt"
        if not checkpoint.is_file():
            raise UsageError(
                f"a guided stage needs {checkpoint}; pretrain the guide first", key="guide"
            )
        path = checkpoint.with_suffix(".safetensors")
        export(torch.load(checkpoint, map_location="cpu")["vit"], path)
        return small_guide(str(path.resolve()))[0].to(self.device)

    @torch.no_grad()
    def _correlations(self, batch: Batch, chosen: Tensor, kept: Tensor | None) -> Tensor:
        """D-Attn's correlations between the patches in use."""
        if batch.segments is None:
            maps = self._guide(batch.drawn.images[chosen])
        else:
            maps = batch.segments[chosen]
        if kept is not None:
            index = kept[:, None].expand(-1, maps.shape[1], -1)
            maps = maps.flatten(2).gather(2, index).unsqueeze(-1)
        return self._attention.correlations(maps)

    def _seed(self, step: int) -> int:
        return (self.recipe["seed"] + 1000 * self.stage) * 1_000_003 + step

    def _batch(self, stage: dict[str, Any]) -> Batch:
        """The batch of this step; the next one is drawn in the background."""
        now, following = (self.stage, self.step), (self.stage, self.step + 1)
        draw_in_background = self.drawing_thread.submit
        if self.prefetched is None or self.prefetched[0] != now:
            self.prefetched = (now, draw_in_background(self._draw, stage, self.step))
        batch = self.prefetched[1].result()
        self.prefetched = (following, draw_in_background(self._draw, stage, self.step + 1))
        return batch

    @torch.no_grad()
    def _draw(self, stage: dict[str, Any], step: int) -> Batch:
        look = stage["looks"][step % len(stage["looks"])]
        generator = torch.Generator(self.device).manual_seed(self._seed(step))
        canvas = Canvas(look["image_size"], generator)
        drawn = draw(canvas, **stage["drawings"])
        patch, kept = self.model.tower.patch_size[0], None
        if "scattered" in look:
            kept = scattered(canvas, drawn, patch, look["scattered"])
        elif look["window"] is not None:
            kept = window(canvas, drawn, patch, look["window"])
        is_drawn = stage["guide"] == "segments"
        segments = segment_features(canvas, drawn, patch) if is_drawn else None
        return Batch(drawn, kept, segments)

    def _save(self) -> None:
        state = {
            "model": self.model.clip.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(self.checkpoint) as part:
            torch.save(state, part)

    def _load(self, stages: list[dict[str, Any]]) -> None:
        state = torch.load(self.checkpoint, map_location=self.device)
        self.model.clip.load_state_dict(state["model"])
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]
        if state["optimizers"]:
            self.optimizers = optimizers(self.model.clip, self.settings, stages[self.stage])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        log.info("resuming from stage %d, step %d", self.stage + 1, self.step)
