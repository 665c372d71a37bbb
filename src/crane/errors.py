"""The one error that a user's mistake ends in, and the wording of counts."""

import re
from collections.abc import Mapping
from functools import partial

EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("plotly", "pandas"), "report"),
    **dict.fromkeys(("tensorboard", "tensorboardX"), "tensorboard"),
    "wandb_workspaces": "wandb-workspaces",
}
"""Packages that are not always installed, and the extra of crane-ad that installs each."""


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
    """The user's mistake behind an error, if there is one: libraries wrap what constructors raise.

    A package that an extra installs and that is missing counts as one, too.

    >>> usage_error(RuntimeError("no mistake")) is None
    True
    >>> usage_error(ModuleNotFoundError("No module named 'plotly'", name="plotly"))
    UsageError("plotly is not installed; pip install 'crane-ad[report]'")
    """
    while error is not None:
        if isinstance(error, UsageError):
            return error
        if isinstance(error, ImportError) and (extra := missing_extra(error)) is not None:
            return extra
        error = error.__cause__ or error.__context__
    return None


def missing_extra(error: ImportError) -> UsageError | None:
    """The user's error for a package that an extra installs; None for any other package."""
    text = error.name or str(error)  # lightning names no package, but says which one it needs
    for package, extra in EXTRAS.items():
        if text.partition(".")[0] == package or f"`{package}`" in text:
            return UsageError(f"{package} is not installed; pip install 'crane-ad[{extra}]'")
    return None
