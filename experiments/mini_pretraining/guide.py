"""The small guide: a ViT pretrained on drawings by self-distillation, as in DINO and iBOT.

The student gets two views of each picture with blocks of patches masked; the teacher, an
exponential moving average of the student, gets them unmasked. The student predicts the teacher's
class token of the other view (DINO, arXiv 2104.14294) and all its patch tokens, masked or not
(iBOT, 2111.07832; iBOT++, 2604.12012). Losses, heads and masks come from lightly. There is no
position embedding: with one, the guide separates patches by position and no longer groups them by
part (LOG.md).
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

from crane.files import replacing
from experiments.mini_pretraining.canvas import Canvas, per_picture
from experiments.mini_pretraining.loop import rate
from experiments.mini_pretraining.pictures import draw

log = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's channel means and standard deviations, as in conf/guide/mini.yaml."""
ALIKE = 0.7
"""Mean cosine of a picture's patches above which they are pushed apart; D-Attn keeps pairs above
1.2 times the mean."""


def view(canvas: Canvas, images: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M 3 S S"]:
    """A random crop of each picture, randomly flipped, with colour jitter, normalised."""
    num = len(images)
    scale = canvas.uniform(num, 0.55, 1.0)
    flip = 1.0 - 2.0 * canvas.chance(num, 0.5)
    room = 1.0 - scale
    zero = torch.zeros_like(scale)
    across = torch.stack([scale * flip, zero, room * canvas.uniform(num, -1, 1)], dim=-1)
    down = torch.stack([zero, scale, room * canvas.uniform(num, -1, 1)], dim=-1)
    theta = torch.stack([across, down], dim=1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    crops = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = 1.0 + canvas.uniform(3 * num, -0.12, 0.12).view(num, 3, 1, 1)
    gain = gain * per_picture(canvas.uniform(num, 0.8, 1.2))[:, None]
    mean = torch.tensor(MEAN, device=canvas.device).view(3, 1, 1)
    std = torch.tensor(STD, device=canvas.device).view(3, 1, 1)
    return ((crops * gain).clamp(0, 1) - mean) / std


class SelfDistillation(nn.Module):
    """Student, teacher, their heads and losses.

    Args:
        options: timm's options for the ViT, as in conf/guide/mini.yaml.
        num_prototypes: Output width of the heads.
        spread: Weight of the term that keeps the patches of a picture from becoming alike.
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
        """The loss of two views of the same pictures for a given teacher temperature."""
        student, own_picture_head, own_patch_head = self.trained
        side = views[0].shape[-1] // student.vit.patch_embed.patch_size[0]
        num = len(views[0])
        both = torch.cat(views)
        mask = random_block_mask((2 * num, side, side), device=both.device)
        masked = mask.flatten(1)
        with torch.no_grad():
            backbone, picture_head, patch_head = self.teachers
            unmasked = backbone.encode(both)
            target = picture_head(unmasked[:, 0]).float()
            target_patches = patch_head(unmasked[:, 1:]).float()
        with_class = torch.cat([torch.zeros_like(masked[:, :1]), masked], dim=1)
        encoded = student.encode(both, mask=with_class)
        output = own_picture_head(encoded[:, 0]).float()
        output_patches = own_patch_head(encoded[:, 1:]).float()
        pictures = self.picture_loss(list(target.chunk(2)), list(output.chunk(2)), temperature)
        patches = self.patch_loss(target_patches, output_patches, mask, temperature)
        unit = F.normalize(encoded[:, 1:].float(), dim=-1) * ~masked[:, :, None]
        mean = unit.sum(1) / (~masked).sum(1, keepdim=True)
        alike = mean.square().sum(-1)  # mean cosine of two unmasked patches
        return pictures + patches + self.spread * F.relu(alike - ALIKE).mean()


def _networks(options: dict[str, Any], num_prototypes: int) -> nn.ModuleList:
    """A ViT and its two heads, for the class token and for patch tokens."""
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
    """Pretrain the guide, or resume it; returns the loss of each step of this call.

    The result is the teacher's ViT, under `vit` in `guide.ckpt`.

    Args:
        recipe: The whole recipe; only `guide`, `seed` and `image_size` are used.
        folder: Folder of `guide.ckpt`.
        device: Device for drawing and training.
        steps: Number of steps in total, those of earlier calls included.
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
    started = saved = time.monotonic()
    for step in range(first, steps):
        peak = settings["learning_rate"] * rate(step, steps, settings["warmup"], settings["decay"])
        for group in optimizer.param_groups:
            group["lr"] = peak
        seed = recipe["seed"] * 2_000_003 + step
        torch.manual_seed(seed)  # for the masks
        canvas = Canvas(recipe["image_size"], torch.Generator(device).manual_seed(seed))
        with torch.no_grad():
            images = draw(canvas, **settings["drawings"]).images
            views = [view(canvas, images), view(canvas, images)]
        warmth = min(1.0, step / settings["warmup"])
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            loss = model(views, 0.04 + 0.02 * warmth)
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
                "seconds": seconds + saved - started,
            }
            with replacing(path) as part:
                torch.save(state, part)
    return totals
