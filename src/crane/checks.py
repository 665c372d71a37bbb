"""Types, ranges and choices of values, declared in signatures and checked where they enter.

A constructor states what it takes (`num_blocks: NonNegativeInt`) and is decorated with `checked`;
`crane.gate` checks the same annotations before it builds anything, so that an error names the key
as it was typed. There is no third place.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen, MultipleOf

from crane.errors import InvalidValueError, UsageError

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
"""A seed, as numpy takes it."""
Text = Annotated[str, MinLen(1)]
PathText = Annotated[str, MinLen(1), "a path"]
"""A path as it is typed; the constructors and functions that open it expand `~`."""

_SCALARS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
Validate = Callable[[object], object]

T = TypeVar("T", bound=Callable[..., Any])


def checked(target: T) -> T:
    """Check the arguments of a function or of a class's constructor against its annotations.

    Only plain values are checked (numbers, text, truth values, choices, and lists and mappings of
    them); numbers must be finite. Arguments keep the form in which they came.

    Raises:
        UsageError: On the call, naming the argument.

    >>> @checked
    ... def scale(factor: PositiveFloat, mode: Literal["linear", "log"] = "linear") -> float:
    ...     return factor
    >>> scale(0)
    Traceback (most recent call last):
    crane.errors.InvalidValueError: factor must be a number above 0, not 0
    >>> scale(1, mode="cubic")
    Traceback (most recent call last):
    crane.errors.InvalidValueError: mode must be linear or log, not 'cubic'
    """
    if isinstance(target, type):
        setattr(target, "__init__", checked(vars(target)["__init__"]))  # noqa: B010
        return target
    signature = inspect.signature(target)

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        declared = _declared(target)
        for name, value in given.items():
            if name in declared:
                check_value(value, declared[name], name)
        return target(*args, **kwargs)

    return cast(T, call)


def check_value(value: object, annotation: Any, key: str) -> None:
    """Check one value.

    Args:
        value: Any value, containers included.
        annotation: What is declared for it; parts that are no plain values are not looked at.
        key: Its key, for the error.

    Raises:
        UsageError: It does not fit.
    """
    try:
        validate = _validator(annotation)
    except TypeError:  # an annotation that cannot be hashed
        validate = _validator.__wrapped__(annotation)
    if validate is None:
        return
    if isinstance(value, Number) and hasattr(value, "item"):  # of numpy
        value = value.item()
    try:
        validate(value)
    except ValueError as error:  # pydantic's ValidationError is one
        errors = error.errors()  # type: ignore[attr-defined]
        where = [part for part in errors[0]["loc"] if isinstance(part, int)]
        entry = f" (entry {where[0] + 1})" if where and isinstance(value, (list, tuple)) else ""
        raise InvalidValueError(
            f"must be {describe(annotation)}, not {shown(value)}{entry}", key=key
        ) from None


def declared_values(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The arguments of a function or constructor that are declared as plain values."""
    return _declared(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009


@functools.cache
def _declared(function: Callable[..., Any]) -> Mapping[str, Any]:
    function = inspect.unwrap(function)
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, AttributeError, ValueError):  # another library's, or built in C
        return {}
    repeated = {
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    left_out = {"return", *repeated}
    return {n: hint for n, hint in hints.items() if n not in left_out and _is_plain(hint)}


def _is_plain(annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS or annotation in (None, types.NoneType, Path):
        return True
    if origin is Annotated:
        return _is_plain(arguments[0])
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType):
        return all(map(_is_plain, arguments))
    if origin in (list, tuple, set, frozenset, dict) or getattr(origin, "__module__", "") == (
        "collections.abc"
    ):
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return origin is not Callable and bool(inner) and all(map(_is_plain, inner))
    return False


@functools.cache
def _validator(annotation: Any) -> Validate | None:
    from pydantic import ConfigDict, TypeAdapter  # half a second, which `crane --help` can save

    if not _is_plain(annotation):
        return None
    config = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(_strict(annotation), config=config).validate_python


def _strict(annotation: Any) -> Any:
    """The annotation with scalars that convert nothing: no text as a number, no true as 1."""
    from pydantic import Strict

    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS:
        return Annotated[annotation, Strict()]
    if annotation is Path:  # an empty text would mean the current folder
        return Annotated[Path, Strict()] | Annotated[str, Strict(), MinLen(1)]
    if origin is Annotated:
        return Annotated[(_strict(arguments[0]), *annotation.__metadata__)]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_strict, arguments))]  # noqa: UP007
    if origin is not None and origin is not Literal:
        return origin[tuple(a if a is Ellipsis else _strict(a) for a in arguments)]
    return annotation


def describe(annotation: Any) -> str:
    """What a declared value may be, in words; text among an annotation's metadata replaces them.

    >>> describe(PositiveInt | Literal["auto"]), describe(Fraction | None)
    ('an integer of at least 1 or auto', 'a number from 0 to 1, or null')
    >>> describe(list[PositiveInt])
    'a list, each entry an integer of at least 1'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation in (None, types.NoneType):
        return "null"
    if annotation is Path:
        return "a path"
    if origin is Annotated:
        own = [one for one in annotation.__metadata__ if isinstance(one, str)]
        if own:
            return own[-1]
        text = describe(arguments[0])
        if text.startswith("a list") and any(
            isinstance(o, MinLen) for o in annotation.__metadata__
        ):
            return text.replace("a list", "a non-empty list", 1)
        return text + _range(annotation.__metadata__)
    if origin is Literal:
        return _either([_word(one) for one in arguments])
    if origin in (Union, types.UnionType):
        parts = [describe(a) for a in arguments if a is not types.NoneType and a is not Path]
        text = _either(parts)
        return f"{text}, or null" if types.NoneType in arguments else text
    if origin in (dict, Mapping):
        return f"a mapping, each value {describe(arguments[1])}"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(map(describe, arguments))}"
    return f"a list, each entry {describe(arguments[0])}"


def _range(metadata: Sequence[Any]) -> str:
    low = high = ""
    for one in metadata:
        if isinstance(one, MinLen):
            return " that is not empty"
        if (above := getattr(one, "gt", None)) is not None:
            low = f"above {above}"
        if (least := getattr(one, "ge", None)) is not None:
            low = f"from {least}"
        if (below := getattr(one, "lt", None)) is not None:
            high = f"below {below}"
        if (most := getattr(one, "le", None)) is not None:
            high = f"to {most}" if low.startswith("from") else f"of at most {most}"
    if low.startswith("from") and not high:
        low = low.replace("from", "of at least")
    if low.startswith("from") and high.startswith("below"):
        high = f"to {int(high.split()[1]) - 1}" if high.split()[1].isdigit() else f"and {high}"
    if low.startswith("above") and high:
        high = f"and {high}"
    text = " ".join(filter(None, (low, high)))
    factors = [f"divisible by {one.multiple_of}" for one in metadata if isinstance(one, MultipleOf)]
    return "".join(f" {part}" for part in [text, *factors] if part)


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(value: object) -> str:
    """A value as it would be typed: `null` and `true` in small letters, text in quotes.

    >>> shown(None), shown(True), shown("banana"), shown(float("nan"))
    ('null', 'true', "'banana'", 'nan')
    """
    if value is None:
        return "null"
    text = _word(value) if isinstance(value, (bool, int, float)) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def existing_file(path: str | Path, key: str, wanted: str) -> Path:
    """The path of a file that must exist, with `~` expanded.

    Args:
        path: As it was typed.
        key: Its key, for the error.
        wanted: What the file is, for the error.

    Raises:
        UsageError: It does not exist or is a folder.

    >>> existing_file("nowhere.ckpt", "resume", "a checkpoint")
    Traceback (most recent call last):
    crane.errors.UsageError: resume: nowhere.ckpt does not exist; give a checkpoint
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    problem = "is a folder" if file.is_dir() else "does not exist"
    raise UsageError(f"{key}: {path} {problem}; give {wanted}", key=key)


def existing_folder(path: str | Path, key: str, wanted: str) -> Path:
    """The path of a folder that must exist, with `~` expanded; see `existing_file`.

    >>> existing_folder("nowhere", "paths", "a folder of runs")
    Traceback (most recent call last):
    crane.errors.UsageError: paths: nowhere does not exist; give a folder of runs
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    problem = "is not a folder" if folder.exists() else "does not exist"
    raise UsageError(f"{key}: {path} {problem}; give {wanted}", key=key)


def one_of(value: object, options: Iterable[object], what: str, key: str | None = None) -> None:
    """Refuse a name that is not among those known.

    Args:
        value: What was given.
        options: What may be given.
        what: What it names, such as `attention`.
        key: Its key, if it has one.

    Raises:
        UsageError: Lists the options, and the nearest one first.

    >>> one_of("aupo", ["image_auroc", "aupro"], "metric", "objective")
    Traceback (most recent call last):
    crane.errors.UsageError: objective: unknown metric 'aupo'; did you mean aupro? ...
    """
    known = list(map(str, options))
    if str(value) in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    choice = f"{guess}choose one of {', '.join(known)}" if known else "there is none"
    raise UsageError(f"unknown {what} {shown(value)}; {choice}", key=key)


__all__ = [
    "Fraction",
    "Ge",
    "Gt",
    "Interval",
    "Le",
    "Lt",
    "MinLen",
    "MultipleOf",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PathText",
    "PositiveFloat",
    "PositiveInt",
    "Seed",
    "Text",
    "check_value",
    "checked",
    "declared_values",
    "describe",
    "existing_file",
    "existing_folder",
    "one_of",
    "shown",
]
