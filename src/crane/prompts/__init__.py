"""Learned prompts and how an image enters them."""

from crane.prompts.context import (
    Context,
    pad_prefix,
    pad_suffix,
    replace_prefix,
    replace_suffix,
)
from crane.prompts.learner import STATES, PromptLearner, PromptRows

__all__ = [
    "STATES",
    "Context",
    "PromptLearner",
    "PromptRows",
    "pad_prefix",
    "pad_suffix",
    "replace_prefix",
    "replace_suffix",
]
