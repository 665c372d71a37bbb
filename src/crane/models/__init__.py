"""Crane and Crane+, put together from the layers below."""

from crane.models.build import MODEL_KEYS, build_model, load_prompts, model_config
from crane.models.compile import compile_towers
from crane.models.crane import Crane, Scoring
from crane.models.losses import CraneLoss, Losses, dice_loss, focal_loss
from crane.models.official import is_official, prompts_from_official
from crane.models.vision import VisionEncoder

__all__ = [
    "MODEL_KEYS",
    "Crane",
    "CraneLoss",
    "Losses",
    "Scoring",
    "VisionEncoder",
    "build_model",
    "compile_towers",
    "dice_loss",
    "focal_loss",
    "is_official",
    "load_prompts",
    "model_config",
    "prompts_from_official",
]
