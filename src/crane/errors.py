"""The one error a user's mistake ends in."""


class UsageError(ValueError):
    """Something the user gave does not fit: says what was wanted, what came, and what to change.

    The command line prints its message without a traceback.

    >>> print(UsageError("a number of blocks up to 12", 19, key="attention.num_blocks"))
    expected a number of blocks up to 12, but got 19 (change attention.num_blocks)
    >>> print(UsageError("an image", "notes.txt", hint="convert it to PNG first"))
    expected an image, but got 'notes.txt'; convert it to PNG first
    """

    def __init__(
        self, wanted: str, got: object, *, key: str | None = None, hint: str | None = None
    ) -> None:
        shown = str(got) if isinstance(got, (int, float, tuple, list)) else repr(got)
        message = f"expected {wanted}, but got {shown}"
        if key is not None:
            message += f" (change {key})"
        if hint is not None:
            message += f"; {hint}"
        super().__init__(message)
        self.wanted, self.got, self.key, self.hint = wanted, got, key, hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.wanted, self.got, self.key, self.hint)


def unwritable(folder: object, error: OSError, key: str) -> UsageError:
    """The mistake behind an error of a disk: the folder named cannot be written.

    >>> print(unwritable("runs", PermissionError(13, "Permission denied"), "hydra.run.dir"))
    expected a folder that can be written, but got 'runs: Permission denied' (change hydra.run.dir)
    """
    came = f"{folder}: {error.strerror or error}"
    return UsageError("a folder that can be written", came, key=key)


def _rebuild(wanted: str, got: object, key: str | None, hint: str | None) -> UsageError:
    return UsageError(wanted, got, key=key, hint=hint)
