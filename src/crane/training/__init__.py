"""Training and testing with Lightning."""

from crane.methods.checkpoint import (
    PromptCheckpoint,
    adopt_config,
    load_model,
    read_checkpoint,
    save_prompts,
)
from crane.training.callbacks import DrawOverlays, KeepPrompts
from crane.training.loggers import wandb_logger
from crane.training.module import CraneModule
from crane.training.processes import own_processes
from crane.training.run import RunSummary, test, train, weight_hashes

__all__ = [
    "CraneModule",
    "DrawOverlays",
    "KeepPrompts",
    "PromptCheckpoint",
    "RunSummary",
    "adopt_config",
    "load_model",
    "own_processes",
    "read_checkpoint",
    "save_prompts",
    "test",
    "train",
    "wandb_logger",
    "weight_hashes",
]
