"""Compiling the frozen towers with `torch.compile`."""

import logging

from crane.errors import UsageError
from crane.methods.crane import Crane

logger = logging.getLogger(__name__)

MODES = ("default", "reduce-overhead", "max-autotune")
"""What `compile` may be beside none; the modes of `torch.compile`."""


def compile_towers(model: Crane, mode: str | bool) -> None:
    """Let the vision and the text side run compiled from their next call on.

    Parameters keep their names, so checkpoints do not notice. The first batch of each size waits
    for the compiler, a minute or more for a large tower; this is said beforehand.

    Args:
        model: Its towers are changed in place.
        mode: One of `MODES`, true for the first; `none` and false leave everything as it is.

    Raises:
        UsageError: There is no such mode.
    """
    if mode is False or mode == "none":
        return
    mode = MODES[0] if mode is True else mode
    if mode not in MODES:
        raise UsageError(f"none, {', '.join(MODES)}", mode, key="compile")
    logger.info(
        "compile=%s: the first batch waits for the compiler, minutes for large towers", mode
    )
    model.vision.compile(mode=mode)
    model.text.compile(mode=mode)
