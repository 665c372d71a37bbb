"""Mistakes that show only once the configuration is complete, or deep inside a call."""

from omegaconf import DictConfig, OmegaConf

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


def usage_error(error: BaseException | None) -> UsageError | None:
    """The user's mistake behind an error, if there is one: Hydra wraps what constructors raise.

    >>> usage_error(RuntimeError("no mistake")) is None
    True
    """
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error
