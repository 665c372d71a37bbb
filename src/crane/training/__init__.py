"""Training and testing with Lightning."""

from crane.methods import (
    PromptCheckpoint,
    adopt_config,
    load_model,
    read_checkpoint,
    save_prompts,
)
from crane.training.callbacks import KeepPrompts, WriteTestResults
from crane.training.module import CraneModule
from crane.training.run import RunSummary, test, train, weight_hashes
from crane.training.trainers import own_processes, trainer
from crane.training.wandb_logging import wandb_logger

__all__ = [
    "CraneModule",
    "KeepPrompts",
    "PromptCheckpoint",
    "RunSummary",
    "WriteTestResults",
    "adopt_config",
    "load_model",
    "own_processes",
    "read_checkpoint",
    "save_prompts",
    "test",
    "train",
    "trainer",
    "wandb_logger",
    "weight_hashes",
]
