"""What a result must carry beside its numbers to be understood and made again."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import yaml

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
    """Where, when and from what a run was made; beside it goes its resolved configuration."""

    command: str
    """The command line as typed."""
    seed: int
    """Seed of everything random."""
    device: str
    """What it ran on, such as `cpu` or `cuda:0 (NVIDIA H100)`."""
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
    """Operating system and processor."""
    started: str
    """Start in UTC, ISO 8601."""
    ended: str | None = None
    """End in UTC, ISO 8601; None for a run under way or interrupted."""

    def finished(self) -> "RunRecord":
        """Give the same record with the present moment as its end."""
        return replace(self, ended=_now())


def begin_record(
    *, seed: int, device: str, data: Mapping[str, str], weights: Mapping[str, str]
) -> RunRecord:
    """Record a run that begins now: the command line, sources, versions and machine are found."""
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
        started=_now(),
    )


def write_record(folder: Path, record: RunRecord, config: Mapping[str, object]) -> Path:
    """Write `record.json` and the resolved configuration, `config.yaml`, into a run's folder.

    Written once at the start and again at the end, the record tells a whole run from one that
    was interrupted.

    Args:
        folder: the run's folder; made if missing.
        record: the record.
        config: the resolved configuration in plain dicts, lists, numbers, strings.

    Returns:
        Path of `record.json`.
    """
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / "config.yaml", text)
    return write_json(folder / "record.json", asdict(record))


def package_versions() -> dict[str, str | None]:
    """Give the versions of Python and of `PACKAGES`; None for what is not installed."""
    return {
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in PACKAGES.items()},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def source_state(package: Path) -> tuple[str | None, bool | None]:
    """Give the git commit of a package's sources and whether they differ from it.

    Args:
        package: folder of an imported package. One that git does not track, such as an installed
            copy in the virtual environment of some other project, has no commit.

    Returns:
        (commit, dirty), or (None, None) where there is no git or no commit. Only files of the
        package count as changes: results written into the repository do not.
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
