"""Mistakes that show only once the configuration is complete, or deep inside a call."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from crane.errors import UsageError


def check_complete(config: DictConfig) -> None:
    """Refuse a configuration in which a value that must be given is not.

    Raises:
        UsageError: Names the keys.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        typed = " ".join(f"{key}=…" for key in missing)
        raise UsageError(f"{typed} on the command line", "no value", key=" and ".join(missing))


def listed(value: object, key: str, wanted: str) -> list[str]:
    """The entries of a list that is not empty.

    Args:
        value: Of the configuration.
        key: Its key.
        wanted: What the list is of, for errors.

    Raises:
        UsageError: It is something else, or empty.
    """
    if not isinstance(value, ListConfig) or not value:
        shown = list(value) if isinstance(value, ListConfig) else value
        raise UsageError(f"a list of {wanted}", shown, key=key)
    return list(map(str, value))


def usage_error(error: BaseException | None) -> UsageError | None:
    """The user's mistake behind an error, if there is one: Hydra wraps what constructors raise.

    >>> usage_error(RuntimeError("no mistake")) is None
    True
    """
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error
