"""The earlier name of `crane.methods`, kept for one version."""

import warnings
from collections.abc import Mapping
from typing import Any

from crane import methods
from crane.identity import MODEL_KEYS
from crane.methods import *  # noqa: F403

__all__ = [*methods.__all__, "MODEL_KEYS", "load_prompts"]


def load_prompts(model: methods.Crane, state_dict: Mapping[str, Any]) -> None:
    """Give a model learned prompts; now `model.load_learned(state_dict)`."""
    model.load_learned(state_dict)


warnings.warn(
    "crane.models is now crane.methods; the old name will be removed in the next version",
    DeprecationWarning,
    stacklevel=2,
)
