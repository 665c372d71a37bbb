"""What the jobs of a multirun are called: the place in line and what varies."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from crane.cli.overrides import overrides_among

EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
"""Hydra's key for the overrides that are no part of a job's name."""

NEVER = ("run_dir", "datasets_dir", "weights_dir", "results_store", "skip_finished", "baseline")
"""What is never part of a name, as in conf/base/hydra.yaml: the command line replaces that list."""

MAX_LENGTH = 100
"""Characters in a job folder's name; file systems take 255 bytes."""


def with_job_names(arguments: Sequence[str]) -> list[str]:
    """Arguments of a multirun, with word that what all jobs share is no part of their names.

    >>> with_job_names(["-m", "trainer=cpu", "attention=vv,qq", "seed=1,2"])[-1]
    "hydra.job.config.override_dirname.exclude_keys=['run_dir', ..., 'baseline', 'trainer']"
    """
    overrides = OverridesParser.create().parse_overrides(overrides_among(arguments))
    if any(override.key_or_group == EXCLUDED for override in overrides):
        return list(arguments)
    # Group without its package: a sweep over sources names jobs though targets are the same.
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    constant = [
        str(override.key_or_group)
        for override in overrides
        if override.key_or_group not in swept
        and not str(override.key_or_group).startswith("hydra.")
    ]
    return [*arguments, f"{EXCLUDED}={list(dict.fromkeys([*NEVER, *constant]))}"]


def job_folder(number: object, varies: object) -> str:
    """A job's folder: its number and what varies, without characters that a shell or Hydra reads.

    >>> job_folder(3, "attention=vv,dataset@source=[mvtec,visa],seed=1")
    '3_attention=vv_source=mvtec_visa_seed=1'
    >>> len(job_folder(0, "x" * 500))
    100
    """
    words = re.sub(r"[^\w=.+-]+", "_", re.sub(r"[\[\]'\"]", "", _short(str(varies))))
    return f"{number}_{words}"[:MAX_LENGTH].rstrip("._=")


def _short(varies: str) -> str:
    return re.sub(r"\b\w+@", "", varies)
