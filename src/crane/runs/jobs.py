"""What the jobs of a multirun leave in their folders: how each of them ended."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

JOB_FILE = "job.json"
"""What a job of a multirun leaves in its folder for summaries and reports."""

BEGUN, SKIPPED = "begun", "skipped"
"""What a job is until it ends, and how one ends whose run was finished before."""


@dataclass(frozen=True)
class JobOutcome:
    """How a job of a multirun ended."""

    number: int
    """Its place in the multirun."""
    varies: tuple[str, ...]
    """The overrides that tell it from its neighbours, the seed left out."""
    seed: int
    """Its seed."""
    status: str
    """`finished`, `failed` or `skipped`; `begun` of one under way, and of one that was killed."""
    run_id: str | None = None
    """The run in the store; of a skipped job the earlier one. None without a store."""
    error: str | None = None
    """Why it failed."""

    @property
    def name(self) -> str:
        """What varies, in one word."""
        return ",".join(self.varies) or "all"


def read_outcomes(folder: Path, depth: int = 1) -> dict[Path, JobOutcome]:
    """How the jobs of a multirun ended, in their order, by the file that says so.

    Args:
        folder: The multirun's folder; others' files of that name are left out.
        depth: How many folders below it the jobs have theirs.
    """
    return _in_order(folder.glob("/".join(["*"] * depth + [JOB_FILE])))


def read_jobs(folder: Path) -> dict[Path, JobOutcome]:
    """How the jobs at any depth below a folder ended, in their order, by their folders."""
    found = _in_order(sorted(folder.rglob(JOB_FILE)))
    return {path.parent: outcome for path, outcome in found.items()}


def _in_order(files: Iterable[Path]) -> dict[Path, JobOutcome]:
    found = {path: outcome for path in files if (outcome := _read(path)) is not None}
    return dict(sorted(found.items(), key=lambda one: one[1].number))


def _read(path: Path) -> JobOutcome | None:
    """What a file says of a job; None if it is not of ours."""
    content = json.loads(path.read_text("utf-8"))
    try:
        known = {one.name: content[one.name] for one in fields(JobOutcome) if one.name in content}
        return JobOutcome(**{**known, "varies": tuple(content["varies"])})
    except (TypeError, KeyError):
        return None
