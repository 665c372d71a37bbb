"""Learned prompts and how an image enters them."""

from crane.prompts.learner import (
    STATES,
    Context,
    PromptLearner,
    PromptRows,
    check_learned,
    pad_prefix,
    pad_suffix,
    replace_prefix,
    replace_suffix,
)

__all__ = [
    "STATES",
    "Context",
    "PromptLearner",
    "PromptRows",
    "check_learned",
    "pad_prefix",
    "pad_suffix",
    "replace_prefix",
    "replace_suffix",
]
