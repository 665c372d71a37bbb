"""Overrides of runs: read before anything runs, and those refused that would not count."""

import shlex
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser

from crane.errors import UsageError

BESIDE = "type it as a word of its own"
OF_RECIPES = {
    "seed": "seeds=[1,2] says which are run",
    "dataset@source": "source in a recipe says what is trained on",
    "source": "source in a recipe says what is trained on",
    "dataset@targets": "targets in a recipe, or suite.targets=[…], say what is tested",
    "targets": "targets in a recipe, or suite.targets=[…], say what is tested",
    "checkpoint": "checkpoint of a row names one",
    "epoch": "epoch of a row says whose prompts are tested",
    "resume": "an interrupted training goes on by itself",
    "run_dir": "hydra.run.dir=… beside it says where runs go",
    **dict.fromkeys(("datasets_dir", "weights_dir", "allow_download", "results_store"), BESIDE),
    "hydra": BESIDE,
}
"""Keys that a run gets from elsewhere, so that overrides of them would not count, and whence."""


def key_of(override: str) -> str:
    """The key of an override.

    Raises:
        UsageError: It is no override.
    """
    try:
        return OverridesParser.create().parse_override(override).get_key_element()
    except Exception as error:
        wanted = "overrides of the form KEY=VALUE"
        raise UsageError(wanted, override, hint=str(error).splitlines()[0]) from error


def check_overrides(overrides: Iterable[str], key: str) -> None:
    """Refuse what is no override, and overrides that would not count.

    Args:
        overrides: What is to be changed in a run.
        key: Where they are said, for errors.

    Raises:
        UsageError: One is refused.
    """
    for override in overrides:
        try:
            name = key_of(override).lstrip("+~")
        except UsageError as error:
            raise UsageError(error.wanted, error.got, key=key, hint=error.hint) from error
        hint = OF_RECIPES.get("hydra" if name.startswith(("hydra.", "hydra/")) else name)
        if hint is not None:
            raise UsageError("no override of what runs get from elsewhere", override, key=key,
                             hint=hint)  # fmt: skip


def split(text: object, key: str) -> tuple[str, ...]:
    """Overrides typed in one text, separated by spaces.

    Args:
        text: As typed; None for none.
        key: The key it was given by.

    Raises:
        UsageError: It is no text, a quotation mark is open, or one is refused.
    """
    if text is not None and not isinstance(text, str):
        raise UsageError("overrides in one text, separated by spaces", str(text), key=key)
    try:
        overrides = tuple(shlex.split(text or ""))
    except ValueError as error:
        wanted = "overrides separated by spaces"
        raise UsageError(wanted, text, key=key, hint=str(error).lower()) from error
    check_overrides(overrides, key)
    return overrides
