"""Detection methods: the protocol, Crane and its peers, their losses, building and checkpoints."""

from crane.methods.adaclip import AdaClip
from crane.methods.anomalyclip import AnomalyClip
from crane.methods.anovl import AnoVl
from crane.methods.build import (
    adopt_config,
    build_model,
    compile_towers,
    load_model,
)
from crane.methods.checkpoint import (
    AUTO,
    PromptCheckpoint,
    default_checkpoint,
    model_config,
    open_checkpoint,
    read_checkpoint,
    save_prompts,
)
from crane.methods.clip import PlainClip
from crane.methods.crane import Crane, Scoring
from crane.methods.detector import OBJECT, Detector, Outputs
from crane.methods.losses import CraneLoss, Losses, PixelLoss, dice_loss, focal_loss
from crane.methods.official import is_official, prompts_from_official
from crane.methods.vand import Vand
from crane.methods.vision import VisionEncoder
from crane.methods.winclip import WinClip

__all__ = [
    "AUTO",
    "OBJECT",
    "AdaClip",
    "AnoVl",
    "AnomalyClip",
    "Crane",
    "CraneLoss",
    "Detector",
    "Losses",
    "Outputs",
    "PixelLoss",
    "PlainClip",
    "PromptCheckpoint",
    "Scoring",
    "Vand",
    "VisionEncoder",
    "WinClip",
    "adopt_config",
    "build_model",
    "compile_towers",
    "default_checkpoint",
    "dice_loss",
    "focal_loss",
    "is_official",
    "load_model",
    "model_config",
    "open_checkpoint",
    "prompts_from_official",
    "read_checkpoint",
    "save_prompts",
]
