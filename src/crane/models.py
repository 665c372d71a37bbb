"""The earlier name of `crane.methods`, kept for one version."""

import warnings

from crane import methods
from crane.identity import MODEL_KEYS
from crane.methods import *  # noqa: F403

__all__ = [*methods.__all__, "MODEL_KEYS"]

warnings.warn(
    "crane.models is now crane.methods; the old name will be removed in the next version",
    DeprecationWarning,
    stacklevel=2,
)
