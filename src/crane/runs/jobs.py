"""How each job of a multirun ended, as a file in its folder says."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from crane.checks import checked

JOB_FILE = "job.json"
"""The file in a job's folder, for summaries and reports."""

STARTED, SKIPPED = "started", "skipped"
"""The state of a job until it ends, and of one whose run was finished before."""

RENAMED = {"begun": STARTED}
"""Earlier names of states, as files of version 0.1 have them."""


@checked
@dataclass(frozen=True)
class JobOutcome:
    """How a job of a multirun ended."""

    number: int
    """Its place in the multirun."""
    varies: tuple[str, ...]
    """The overrides that differ between jobs, without the seed."""
    seed: int
    """Its seed."""
    status: str
    """`finished`, `failed` or `skipped`; `started` if it is under way or was killed."""
    run_id: str | None = None
    """The run in the store, for a skipped job the earlier one; None without a store."""
    error: str | None = None
    """Why it failed, or why its outcome is unknown."""

    @property
    def name(self) -> str:
        """The overrides that vary, joined."""
        return ",".join(self.varies) or "all"


def read_outcomes(folder: Path, depth: int = 1) -> dict[Path, JobOutcome]:
    """How the jobs of a multirun ended, by the file that says so, in their order.

    Args:
        folder: The folder of the multirun; other programs' files of that name are left out.
        depth: How many folders below it the jobs have theirs.

    Returns:
        File to outcome. The job of a damaged file counts as unfinished, and its error says so.
    """
    found = {}
    for path in folder.glob("/".join(["*"] * depth + [JOB_FILE])):
        try:
            outcome = read_outcome(path)
        except ValueError as error:
            reason = f"{path} is damaged ({error})"
            outcome = JobOutcome(0, (path.parent.name,), 0, STARTED, error=reason)
        if outcome is not None:
            found[path] = outcome
    return dict(sorted(found.items(), key=lambda one: one[1].number))


def read_outcome(path: Path) -> JobOutcome | None:
    """How the job of one file ended; None if another program wrote the file.

    Raises:
        ValueError: The file is damaged.
    """
    content = json.loads(path.read_text("utf-8"))
    try:
        known = {one.name: content[one.name] for one in fields(JobOutcome) if one.name in content}
        known["status"] = RENAMED.get(known["status"], known["status"])
        return JobOutcome(**{**known, "varies": tuple(content["varies"])})
    except (TypeError, KeyError):
        return None
