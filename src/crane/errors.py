"""The one error that a mistake or the machine's limits end in, and the wording of counts."""

import errno
import re
from collections.abc import Iterator, Mapping
from functools import partial

EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("plotly", "pandas"), "report"),
    **dict.fromkeys(("tensorboard", "tensorboardX"), "tensorboard"),
    "wandb_workspaces": "wandb-workspaces",
    **dict.fromkeys(("litserve", "fastapi", "uvicorn"), "serve"),
    "gradio": "app",
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "export"),
    "openvino": "openvino",
    "ray": "ray",
}
"""Packages that are not always installed, and the extra of crane-ad that installs each."""

KEPT = "what was written before is kept"
_SPACE = f"{KEPT}: free some space and run the same command again"
_RIGHTS = "choose a file or folder that you may read and write"
_KIND = "a file lies where a folder is needed, or the reverse: choose another name"
_OPEN = "raise the limit (ulimit -n 8192) or lower num_workers"
_WORKERS = "num_workers=0 (data.num_workers=0 in train and test)"

DISK: Mapping[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _KIND),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _OPEN),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: f"the disk fails; {KEPT}",
}
"""What to do about errors of the file system, by their numbers."""

_SHARED = f"shared memory (/dev/shm) is full; use {_WORKERS}, or enlarge it"
_MEMORY = "out of memory; lower batch_size (data.batch_size and data.test_batch_size) or image_size"
SIGNS: Mapping[str, str] = {
    **dict.fromkeys(("shared memory", "file </torch_", "Bus error"), _SHARED),
    "DataLoader worker": (
        "a process that loads images was killed, mostly for lack of memory; "
        f"run the same command again with fewer, such as {_WORKERS}"
    ),
    **dict.fromkeys(("out of memory", "can't allocate memory"), _MEMORY),
    "PytorchStreamWriter": f"cannot write a checkpoint, the disk may be full; {_SPACE}",
    "requested and": f"cannot write an array, the disk may be full; {_SPACE}",  # of numpy
}
"""Words in errors of libraries, and what they mean."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts, in singular or plural.

    Args:
        number: How many.
        noun: What one is called; a verb may follow.
        plural: What several are called; None for the noun with an s.

    >>> counted(1, "file"), counted(0, "file"), counted(1200, "entry is", "entries are")
    ('1 file', '0 files', '1,200 entries are')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class UsageError(ValueError):
    """A mistake of the user, told in one sentence: what is wrong, and what to type instead.

    The command line prints the sentence without a traceback and exits with 2.

    Args:
        message: A whole sentence without its full stop.
        key: The configuration key to change; put in front of a message that does not name it.

    >>> print(UsageError("unknown attention 'foo'; choose one of clip, kk, vv", key="attention"))
    unknown attention 'foo'; choose one of clip, kk, vv
    >>> print(UsageError("must be a number of at least 0, not -1", key="scoring.blur_sigma"))
    scoring.blur_sigma must be a number of at least 0, not -1
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        self.problem, self.key = message, key
        if key is not None and message.startswith("must "):
            message = f"{key} {message}"
        elif key is not None and not re.search(rf"(?<![\w./]){re.escape(key)}(?![\w/])", message):
            message = f"{key}: {message}"
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), key=self.key), (self.problem,)


class InvalidValueError(UsageError):
    """A single value that its declared type refuses; the gate completes its key."""

    def under(self, prefix: str) -> "InvalidValueError":
        """The same problem with the key below `prefix`.

        >>> print(InvalidValueError("must be an integer, not 2.5", key="batch_size").under("data"))
        data.batch_size must be an integer, not 2.5
        """
        return InvalidValueError(self.problem, key=f"{prefix}.{self.key}" if prefix else self.key)


def unwritable(folder: object, error: OSError, key: str) -> UsageError:
    """The error for a folder or file that cannot be written.

    >>> print(unwritable("runs", PermissionError(13, "Permission denied"), "hydra.run.dir"))
    cannot write to runs: Permission denied; choose another hydra.run.dir
    """
    return UsageError(
        f"cannot write to {folder}: {error.strerror or error}; choose another {key}", key=key
    )


def usage_error(error: BaseException | None) -> UsageError | None:
    """What the user can mend behind an error, if there is anything: libraries wrap what is raised.

    A package that an extra installs and that is missing counts, and so do the machine's limits.

    >>> usage_error(RuntimeError("no mistake")) is None
    True
    >>> usage_error(ModuleNotFoundError("No module named 'plotly'", name="plotly"))
    UsageError("plotly is not installed; pip install 'crane-ad[report]'")
    """
    causes = list(_causes(error))
    for one in causes:
        if isinstance(one, UsageError):
            return one
        if isinstance(one, ImportError) and (extra := missing_extra(one)) is not None:
            return extra
    return next((found for one in causes if (found := machine_limit(one)) is not None), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def machine_limit(error: BaseException) -> UsageError | None:
    """The limit of the machine that an error reports, with what to do; None for any other error.

    >>> print(machine_limit(OSError(28, "No space left on device", "runs/results.csv")))
    runs/results.csv: No space left on device; what was written before is kept: free some space ...
    >>> machine_limit(FileNotFoundError(2, "No such file or directory", "a")) is None
    True
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        place = f"{error.filename}: " if error.filename else ""
        problem = error.strerror or type(error).__name__
        return UsageError(f"{place}{problem}; {DISK[error.errno]}")
    if not isinstance(error, (RuntimeError, MemoryError, OSError, EOFError)):
        return None
    if isinstance(error, (OSError, EOFError)) and _is_of_a_process(error):
        text = "DataLoader worker"  # it died while it sent a batch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "out of memory"
    return next((UsageError(said) for sign, said in SIGNS.items() if sign in text), None)


def _is_of_a_process(error: BaseException) -> bool:
    """Whether an error arose while Python talked to another process that it had started."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") == "multiprocessing.connection":
            return True
        step = step.tb_next
    return False


def missing_extra(error: ImportError) -> UsageError | None:
    """The user's error for a package that an extra installs; None for any other package."""
    text = error.name or str(error)  # lightning names no package, but says which one it needs
    for package, extra in EXTRAS.items():
        if text.partition(".")[0] == package or f"`{package}`" in text:
            return UsageError(f"{package} is not installed; pip install 'crane-ad[{extra}]'")
    return None
