"""Crane and Crane+, put together from the layers below."""

from crane.methods.build import (
    adopt_config,
    build_model,
    compile_towers,
    load_model,
    load_prompts,
)
from crane.methods.checkpoint import (
    PromptCheckpoint,
    is_official,
    model_config,
    prompts_from_official,
    read_checkpoint,
    save_prompts,
)
from crane.methods.crane import Crane, Scoring
from crane.methods.losses import CraneLoss, Losses, dice_loss, focal_loss
from crane.methods.vision import VisionEncoder

__all__ = [
    "Crane",
    "CraneLoss",
    "Losses",
    "PromptCheckpoint",
    "Scoring",
    "VisionEncoder",
    "adopt_config",
    "build_model",
    "compile_towers",
    "dice_loss",
    "focal_loss",
    "is_official",
    "load_model",
    "load_prompts",
    "model_config",
    "prompts_from_official",
    "read_checkpoint",
    "save_prompts",
]
