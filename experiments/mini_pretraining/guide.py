"""The small guide: a ViT that learns from drawings without captions, as DINO and iBOT do.

A student sees two views of each picture with blocks of patches hidden; its teacher, a running mean
of itself, sees them whole. The student must name the class token of the other view (DINO, arXiv
2104.14294) and every patch, hidden or seen (iBOT, 2111.07832; iBOT++, 2604.12012), as the teacher
does. Losses, heads and masks are those of lightly. Patches have no position embedding: a guide that
can tell places uses them to tell patches apart, and no longer groups by part (LOG.md).
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from lightly.loss import DINOLoss, IBOTPlusPlusPatchLoss
from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
from lightly.models.utils import random_block_mask, update_momentum
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.mini_pretraining.canvas import Canvas, per_picture
from experiments.mini_pretraining.loop import rate
from experiments.mini_pretraining.pictures import draw

log = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Channel means and deviations, those of ImageNet, as conf/guide/mini.yaml states them too."""
ALIKE = 0.7
"""Mean cosine of a picture's patches that needs no lowering; D-Attn keeps those above 1.2 of it."""


def view(canvas: Canvas, images: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M 3 S S"]:
    """A random part of each picture, perhaps mirrored, in slightly other light, normalised."""
    num = len(images)
    scale = canvas.uniform(num, 0.55, 1.0)
    flip = 1.0 - 2.0 * canvas.chance(num, 0.5)
    room = 1.0 - scale
    zero = torch.zeros_like(scale)
    across = torch.stack([scale * flip, zero, room * canvas.uniform(num, -1, 1)], dim=-1)
    down = torch.stack([zero, scale, room * canvas.uniform(num, -1, 1)], dim=-1)
    theta = torch.stack([across, down], dim=1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = 1.0 + canvas.uniform(3 * num, -0.12, 0.12).view(num, 3, 1, 1)
    gain = gain * per_picture(canvas.uniform(num, 0.8, 1.2))[:, None]
    mean = torch.tensor(MEAN, device=canvas.device).view(3, 1, 1)
    std = torch.tensor(STD, device=canvas.device).view(3, 1, 1)
    return ((seen * gain).clamp(0, 1) - mean) / std


class SelfDistillation(nn.Module):
    """Student, teacher, their heads and losses.

    Args:
        options: What timm builds the ViT with, as in conf/guide/mini.yaml.
        num_prototypes: Width of the heads' output.
        spread: Weight of what keeps the patches of a picture from being all alike.
    """

    def __init__(self, options: dict[str, Any], num_prototypes: int, spread: float) -> None:
        super().__init__()
        self.spread = spread
        self.trained = _networks(options, num_prototypes)
        self.teachers = _networks(options, num_prototypes).requires_grad_(False)
        self.teachers.load_state_dict(self.trained.state_dict())
        self.picture_loss = DINOLoss(output_dim=num_prototypes)
        self.patch_loss = IBOTPlusPlusPatchLoss(output_dim=num_prototypes)

    def forward(self, views: list[Float[Tensor, "M 3 S S"]], temperature: float) -> Tensor:
        """The loss of two views of the same pictures at a temperature of the teacher."""
        student, own_picture_head, own_patch_head = self.trained
        side = views[0].shape[-1] // student.vit.patch_embed.patch_size[0]
        num = len(views[0])
        both = torch.cat(views)
        mask = random_block_mask((2 * num, side, side), device=both.device)
        hidden = mask.flatten(1)
        with torch.no_grad():
            backbone, picture_head, patch_head = self.teachers
            whole = backbone.encode(both)
            wanted = picture_head(whole[:, 0]).float()
            wanted_patches = patch_head(whole[:, 1:]).float()
        with_class = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1)
        partly = student.encode(both, mask=with_class)
        given = own_picture_head(partly[:, 0]).float()
        given_patches = own_patch_head(partly[:, 1:]).float()
        pictures = self.picture_loss(list(wanted.chunk(2)), list(given.chunk(2)), temperature)
        patches = self.patch_loss(wanted_patches, given_patches, mask, temperature)
        unit = F.normalize(partly[:, 1:].float(), dim=-1) * ~hidden[:, :, None]
        mean = unit.sum(1) / (~hidden).sum(1, keepdim=True)
        alike = mean.square().sum(-1)  # mean cosine of two patches that are seen
        return pictures + patches + self.spread * F.relu(alike - ALIKE).mean()


def _networks(options: dict[str, Any], num_prototypes: int) -> nn.ModuleList:
    """A ViT and its two heads: for the class token and for patches."""
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options)
    sizes = {"input_dim": options["embed_dim"], "hidden_dim": 256, "bottleneck_dim": 64}
    torch.nn.init.zeros_(vit.pos_embed).requires_grad_(False)
    heads = [DINOProjectionHead(**sizes, output_dim=num_prototypes) for _ in range(2)]
    return nn.ModuleList(
        [MaskedVisionTransformerTIMM(vit=vit, pos_embed_initialization="skip"), *heads]
    )


def pretrain_guide(
    recipe: dict[str, Any], folder: Path, device: str, steps: int, *, save_every: float = 120.0
) -> list[float]:
    """Pretrain the guide, or go on with it; returns the loss of each step taken.

    The teacher's ViT is what is kept, under `vit` in `guide.ckpt`.

    Args:
        recipe: The whole recipe; `guide` is read.
        folder: Where `guide.ckpt` is kept.
        device: Where pictures are drawn and the model is trained.
        steps: The last step.
        save_every: Seconds between checkpoints.
    """
    settings = recipe["guide"]
    torch.manual_seed(recipe["seed"])
    model = SelfDistillation(settings["options"], settings["num_prototypes"], settings["spread"])
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.trained.parameters(), lr=0.0, weight_decay=settings["weight_decay"]
    )
    folder.mkdir(parents=True, exist_ok=True)
    path, first, seconds = folder / "guide.ckpt", 0, 0.0
    if path.is_file():
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
    totals: list[float] = []
    began = saved = time.monotonic()
    for step in range(first, steps):
        peak = settings["learning_rate"] * rate(step, steps, settings["warmup"], settings["decay"])
        for group in optimizer.param_groups:
            group["lr"] = peak
        seed = recipe["seed"] * 2_000_003 + step
        torch.manual_seed(seed)  # the masks'
        canvas = Canvas(recipe["image_size"], torch.Generator(device).manual_seed(seed))
        with torch.no_grad():
            images = draw(canvas, **settings["drawings"]).images
            views = [view(canvas, images), view(canvas, images)]
        warm = min(1.0, step / settings["warmup"])
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            loss = model(views, 0.04 + 0.02 * warm)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.trained.parameters(), settings["clip_norm"])
        if step < settings["warmup"]:
            for head in model.trained[1:]:
                head.cancel_last_layer_gradients(0)
        optimizer.step()
        momentum = 1.0 - (1.0 - settings["momentum"]) * (1.0 + math.cos(math.pi * step / steps)) / 2
        update_momentum(model.trained, model.teachers, m=momentum)
        totals.append(float(loss.detach()))
        if (step + 1) % 20 == 0:
            recent = sum(totals[-20:]) / len(totals[-20:])
            log.info("step %d of %d: loss %.3f", step + 1, steps, recent)
        if step + 1 == steps or time.monotonic() - saved > save_every:
            saved = time.monotonic()
            state = {
                "model": model.state_dict(),
                "vit": model.teachers[0].vit.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "seconds": seconds + saved - began,
            }
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
    return totals
