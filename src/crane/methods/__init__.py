"""Crane and Crane+, put together from the layers below."""

from crane.methods.build import build_model, load_prompts, model_config
from crane.methods.checkpoint import (
    PromptCheckpoint,
    adopt_config,
    load_model,
    read_checkpoint,
    save_prompts,
)
from crane.methods.compile import compile_towers
from crane.methods.crane import Crane, Scoring
from crane.methods.losses import CraneLoss, Losses, dice_loss, focal_loss
from crane.methods.official import is_official, prompts_from_official
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
