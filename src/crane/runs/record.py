"""What a run or a job of a multirun leaves beside its numbers, so that they can be reproduced."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import yaml

from crane.checks import checked
from crane.files import write_json, write_text

PACKAGES: Mapping[str, str] = {
    "crane": "crane-ad",
    "torch": "torch",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "open_clip": "open_clip_torch",
    "timm": "timm",
    "numpy": "numpy",
}
"""Import name to distribution name of the packages whose version is recorded."""


@dataclass(frozen=True)
class RunRecord:
    """Where, when and from what a run was made; its resolved configuration is saved beside it."""

    command: str
    """The command line as typed."""
    seed: int
    """Seed of everything random."""
    device: str
    """The device it ran on, such as `cpu` or `cuda:0 (NVIDIA H100)`."""
    data: Mapping[str, str]
    """Data set name to the fingerprint of its files."""
    weights: Mapping[str, str]
    """Weights (backbone, guide, checkpoint) to their sha256 or to `random, seed N`."""
    commit: str | None
    """Git commit of crane's sources; None when they are not in a git repository."""
    dirty: bool | None
    """Whether the sources differ from the commit; None without one."""
    versions: Mapping[str, str | None]
    """Python and package versions; None for crane when run without being installed."""
    machine: str
    """Operating system and architecture."""
    processor: str
    """Model of the processor; its instructions decide the last bits of the numbers."""
    threads: int
    """Threads of torch in this process, whose number decides the last bits too."""
    started: str
    """Start in UTC, ISO 8601."""
    ended: str | None = None
    """End in UTC, ISO 8601; None for a run that is under way or was interrupted."""

    def finished(self) -> "RunRecord":
        """The same record with the present moment as its end."""
        return replace(self, ended=_now())


@dataclass(frozen=True)
class StoredRun:
    """What the store keeps of a run, in each of its rows."""

    setting: str
    """What the run computes apart from its seed, see `crane.identity.setting_of`."""
    command: str
    """The command, such as `train`."""
    status: str
    """`finished` or `failed`."""
    folder: str
    """The run's folder."""
    seed: int
    overrides: Sequence[str]
    """What was typed after the command."""
    sources: Sequence[str]
    """Data sets trained on."""
    options: Mapping[str, str]
    """Configuration group to the option chosen; groups missing here are null in the table."""
    error: str | None = None
    """Why the run failed."""
    commit: str | None = None
    """Git commit of the sources."""
    dirty: bool | None = None
    """Whether the sources differ from the commit."""
    device: str | None = None
    """The device it ran on."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Package to version."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Data set to the fingerprint of its files."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Weights to their sha256."""
    run_id: str = field(default_factory=lambda: uuid4().hex)
    """The last part of its file's name."""
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    """When it was stored."""


def begin_record(
    *, seed: int, device: str, data: Mapping[str, str], weights: Mapping[str, str]
) -> RunRecord:
    """Record a run that starts now; command line, sources, versions and machine are looked up.

    Args:
        seed: Seed of everything random.
        device: The device it runs on.
        data: Data set name to the fingerprint of its files.
        weights: Weights to their sha256 or to `random, seed N`.
    """
    import torch

    commit, dirty = source_state(Path(__file__).resolve().parents[1])
    return RunRecord(
        command=shlex.join(sys.argv),
        seed=seed,
        device=device,
        data=dict(data),
        weights=dict(weights),
        commit=commit,
        dirty=dirty,
        versions=package_versions(),
        machine=f"{platform.platform()}, {platform.machine()}",
        processor=processor_name(),
        threads=torch.get_num_threads(),
        started=_now(),
    )


def write_record(folder: Path, record: RunRecord, config: Mapping[str, object]) -> Path:
    """Write `record.json` and the resolved configuration, `config.yaml`, into a run's folder.

    It is called at the start and again at the end, so that a record without an end shows that the
    run was interrupted.

    Args:
        folder: The run's folder; made if missing.
        record: The record.
        config: The resolved configuration in plain dictionaries, lists, numbers and strings.

    Returns:
        The path of `record.json`.
    """
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / "config.yaml", text)
    return write_json(folder / "record.json", asdict(record))


def package_versions() -> dict[str, str | None]:
    """The versions of Python and of `PACKAGES`; None for those that are not installed."""
    return {
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in PACKAGES.items()},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The model of the processor, such as `Intel(R) Xeon(R) Platinum 8480C`.

    >>> bool(processor_name())
    True
    """
    try:  # Linux, where `platform.processor` is empty or names the architecture only
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"


def source_state(package: Path) -> tuple[str | None, bool | None]:
    """The git commit of a package's sources, and whether they differ from it.

    Args:
        package: Folder of an imported package. One that git does not track, such as a copy
            installed in the virtual environment of another project, has no commit.

    Returns:
        (commit, dirty), or (None, None) without git or without a commit. Only files of the package
        count as changes; results written into the repository do not.
    """
    if not _git(package, "ls-files", "--", "."):
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    status = _git(package, "status", "--porcelain", "--", ".")
    return (None, None) if commit is None else (commit, bool(status))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
