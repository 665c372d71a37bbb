"""From YAML to dataclasses: the types of their fields say what a file may hold."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from crane.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WANTED = {str: "text", int: "a whole number", float: "a number"}
LISTED = {str: "texts", int: "whole numbers"}

T = TypeVar("T", bound="DataclassInstance")


def made(
    kind: type[T], content: object, path: Path, of: str = "", given: Mapping[str, Any] | None = None
) -> T:
    """A dataclass from what a file says; lists become tuples.

    Args:
        kind: The dataclass.
        content: What the file says.
        path: The file, for errors.
        of: Which part of it, for errors; empty for the whole.
        given: Fields that the file does not say.

    Raises:
        UsageError: A key is unknown or lacking, or a value is of another type.
    """
    given = given or {}
    place = _key("", of, path)
    if not isinstance(content, Mapping):
        raise UsageError("keys and values", content, key=place)
    known = {one.name: one for one in fields(kind) if one.name not in given}
    if strange := sorted(map(str, set(content) - set(known))):
        raise UsageError(f"keys out of {', '.join(known)}", ", ".join(strange), key=place)
    needed = {
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING
    }
    if lacking := sorted(needed - set(content)):
        raise UsageError(f"the keys {', '.join(sorted(needed))}", f"no {lacking}", key=place)
    hints = get_type_hints(kind)
    values = {name: _value(hints[name], one, name, of, path) for name, one in content.items()}
    try:
        return kind(**values, **given)
    except UsageError as error:
        if not of:
            raise
        key = _key(error.key or "", of, path)
        raise UsageError(error.wanted, error.got, key=key, hint=error.hint) from error


def _value(hint: Any, value: object, name: str, of: str, path: Path) -> Any:
    """A value as its type wants it."""
    if get_origin(hint) is UnionType:
        hint = _option(hint, value)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is NoneType:
        return None
    if origin is tuple and isinstance(value, list):
        kind: Any = arguments[0]
        if not is_dataclass(arguments[0]):
            return tuple(_value(kind, one, name, of, path) for one in value)
        parts = [f"{name.removesuffix('s')} {n}" for n in range(1, len(value) + 1)]
        wholes = [f"{part} of {of}" if of else part for part in parts]
        return tuple(made(kind, one, path, whole) for one, whole in zip(value, wholes, strict=True))
    if origin not in (None, tuple) and isinstance(value, Mapping):
        return {
            _value(arguments[0], key, name, of, path): _value(
                arguments[1], one, f"{name}.{key}", of, path
            )
            for key, one in value.items()
        }
    if origin is None and _is(hint, value):
        return value
    quotes = hint is str and isinstance(value, (bool, int, float))
    raise UsageError(
        _wanted(hint),
        value,
        key=_key(name, of, path),
        hint="put it in quotes" if quotes else None,
    )


def _option(hint: Any, value: object) -> Any:
    """What of a union a value is to be; the last where it is none of them."""
    options = get_args(hint)
    if value is None and NoneType in options:
        return NoneType
    options = tuple(one for one in options if one is not NoneType)
    return next((one for one in options if _is(one, value)), options[-1])


def _is(hint: Any, value: object) -> bool:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return math.isfinite(value)
    return isinstance(hint, type) and type(value) is hint


def _wanted(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"a list of {LISTED.get(get_args(hint)[0], 'keys and values')}"
    return WANTED.get(hint, "keys and values")


def _key(name: str, of: str, path: Path) -> str:
    """Where something is said.

    >>> _key("test", "row 2", Path("recipe.yaml")), _key("", "", Path("recipe.yaml"))
    ('test of row 2 in recipe.yaml', 'recipe.yaml')
    """
    whole = " of ".join(filter(None, (name, of)))
    return f"{whole} in {path}" if whole else str(path)
