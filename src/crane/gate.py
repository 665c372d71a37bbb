"""The one gate from a configuration to objects: `build` checks what it is given, then builds it.

Whatever `_target_` a configuration names, its values are compared with the annotations of that
constructor (`crane.checks`) before anything is imported into service, and errors name the key as
it was typed. What comes out of a file, such as a checkpoint's configuration, first passes
`from_file`: it may name only what a fixed table allows for each key.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crane.checks import check_value, declared_values, shown
from crane.errors import InvalidValueError, UsageError, missing_extra, usage_error

TARGET = "_target_"
SPECIAL = (TARGET, "_partial_", "_convert_", "_recursive_", "_args_")
"""Keys that speak to Hydra, not to the constructor."""

COPIES: Mapping[str, str] = {"data.source": "source", "data.targets": "targets"}
"""Keys that only refer to others, which the user types."""

RENAMED: Mapping[str, str] = {
    "crane.models.": "crane.methods.",
    "crane.reporting.ColourScale": "crane.pictures.ColourScale",
    "crane.data.index_set": "crane.datasets.index_set",
    "crane.data.read_card": "crane.datasets.Card",
    "crane.data.layouts.": "crane.datasets.layouts.",
    "crane.data.embedded.index_embedded": "crane.drawn.index_embedded",
}
"""Earlier names of what a configuration may build (version 0.1), and today's."""

FROM_FILES: Mapping[str, tuple[str, ...]] = {
    "backbone.model": ("crane.backbones.load_backbone",),
    "guide.features": ("crane.guides.HubGuide", "crane.guides.TimmGuide"),
    "guide.attention": ("crane.attention.GuidedAttention",),
    "attention": ("crane.attention.SecondStream",),
    "attention.correlation": (
        "crane.attention.SumOfSelfCorrelations",
        "crane.attention.JointSelfCorrelation",
    ),
    "prompt": ("crane.prompts.PromptLearner",),
    "prompt.context": (
        *("crane.prompts.pad_prefix", "crane.prompts.pad_suffix"),
        *("crane.prompts.replace_prefix", "crane.prompts.replace_suffix"),
    ),
    "scoring": ("crane.methods.Scoring",),
    "views": ("crane.views.Whole", "crane.views.OverlappingTiles", "crane.views.Scales"),
    "method.detector": (
        *("crane.methods.AnomalyClip", "crane.methods.Vand", "crane.methods.WinClip"),
        *("crane.methods.AnoVl", "crane.methods.AdaClip", "crane.methods.PlainClip"),
    ),
    "scoring.aggregate": (
        "crane.scoring.mean_of_softmax_maps",
        "crane.scoring.softmax_of_mean_logits",
    ),
}
"""What a file may have built, key by key."""

OF_THE_COMMAND = ("weights_dir", "allow_download")
"""Keys that a file never decides: they are always those of the command that reads it."""

REFERENCE = re.compile(r"\$\{(?:weights_dir|allow_download|image_size|backbone\.\w+)\}")
"""The only interpolations a file may hold: references to keys beside it."""

PARTS = re.compile(r"\$\{(?:seed|attention|prompt|scoring)\}")
"""Beside them, those that a method's constructor may hold for its arguments."""


def build(node: Any, key: str, **given: Any) -> Any:
    """Build what a part of a configuration describes; the only caller of Hydra's `instantiate`.

    Args:
        node: The part, with a `_target_`; what it refers to elsewhere is filled in.
        key: Where it stands in the configuration, for errors.
        given: Further arguments of the constructor.

    Returns:
        The object; with `_partial_: true`, a function that builds it.

    Raises:
        UsageError: A value does not fit its declaration, an argument is unknown or missing, or the
            constructor refuses what it got. Names the key.

    >>> node = OmegaConf.create({"_target_": "crane.scoring.gaussian_blur", "_partial_": True,
    ...                          "sigma": "much"})
    >>> build(node, "blur")
    Traceback (most recent call last):
    crane.errors.InvalidValueError: blur.sigma must be a number, not 'much'
    """
    check(node, key, given)
    if not isinstance(node, Mapping | DictConfig) or TARGET not in node:
        raise UsageError(f"must say what to build ({TARGET}: …), not {shown(node)}", key=key)
    try:
        return instantiate(node, **given, _convert_="all")
    except InstantiationException as error:
        mistake = _mistake(error, key)
        if mistake is None:
            raise
        raise mistake from error


def check(node: Any, key: str, given: Mapping[str, Any] | None = None) -> None:
    """Check a part of a configuration, and the parts within it, without building anything.

    Args:
        node: The part.
        key: Where it stands.
        given: Arguments that will be given beside it; with any, a `_partial_` node must be
            complete.

    Raises:
        UsageError: As in `build`.
    """
    _check(resolved(node, key), key, given or {})


def resolved(node: Any, key: str) -> Any:
    """A part of a configuration as plain values, with what it refers to elsewhere filled in.

    Args:
        node: The part.
        key: Where it stands, for errors.

    Raises:
        UsageError: It refers to something that does not exist, or lacks a required value.
    """
    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key or key), str(error).splitlines()[0]
        raise UsageError(
            f"{key} has no value: {reason[:1].lower()}{reason[1:]}", key=key
        ) from error


def _check(node: Any, key: str, given: Mapping[str, Any]) -> None:
    if isinstance(node, list):
        for number, entry in enumerate(node):
            _check(entry, f"{key}.{number}", {})
        return
    if not isinstance(node, Mapping):
        _check_finite(node, key)
        return
    target = node.get(TARGET)
    declared: Mapping[str, Any] = {}
    if target is not None:
        built = _located(target, f"{key}.{TARGET}")
        _check_names(built, node, key, given)
        declared = declared_values(built)
    for name, value in node.items():
        if name in SPECIAL:
            continue
        inner = _as_typed(str(name), key)
        if name in declared and not _describes_object(value):
            try:
                check_value(value, declared[name], inner)
            except InvalidValueError as error:
                raise error from None
        else:
            _check(value, inner, {})


def _check_finite(value: object, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValueError(f"must be a finite number, not {shown(value)}", key=key)


def _describes_object(value: object) -> bool:
    """Whether an object is to be built of a value, or of something in it."""
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_describes_object, value.values()))
    return isinstance(value, list) and any(map(_describes_object, value))


def _located(target: object, key: str) -> Callable[..., Any]:
    name = str(target)
    if renamed(name) != name:
        raise _unknown(name, key)
    try:
        built = _imported(name.split("."))
    except ImportError as error:
        if name.startswith(error.name or "."):  # this very module, not one that it imports
            raise _unknown(name, key) from error
        raise missing_extra(error) or UsageError(
            f"cannot import {name}: {error}", key=key
        ) from error
    except AttributeError as error:
        raise _unknown(name, key) from error
    if not callable(built):
        raise UsageError(f"{name} is not a function or class", key=key)
    return built


def _imported(parts: Sequence[str]) -> Any:
    """What a dotted name stands for; Hydra's own look-up logs an error as well."""
    found: Any = import_module(parts[0])
    for place, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            import_module(".".join(parts[:place]))
        found = getattr(found, part)
    return found


def _unknown(name: str, key: str) -> UsageError:
    new = renamed(name)
    return UsageError(
        f"there is no {name}" + (f"; it is now {new}" if new != name else ""), key=key
    )


def _check_names(
    built: Callable[..., Any], node: Mapping[str, Any], key: str, given: Mapping[str, Any]
) -> None:
    """Refuse arguments that a constructor does not know, and required ones that nobody gives."""
    try:
        parameters = inspect.signature(built).parameters
    except (TypeError, ValueError):  # built in C
        return
    named = {
        name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    own = [name for name in node if name not in SPECIAL]
    strange = [name for name in own if name not in named]
    if strange and not takes_any:
        raise UsageError(
            f"unknown key {key}.{strange[0]}; {key} takes {', '.join(named)}",
            key=f"{key}.{strange[0]}",
        )
    if "_args_" in node or (node.get("_partial_") and not given):
        return
    lacking = [
        name
        for name, parameter in named.items()
        if parameter.default is parameter.empty and name not in own and name not in given
    ]
    if lacking:
        raise UsageError(f"{key}.{lacking[0]} is required", key=f"{key}.{lacking[0]}")


def _mistake(error: InstantiationException, key: str) -> UsageError | None:
    """The user's mistake behind Hydra's error; None if it is a fault of the program."""
    inside = _as_typed(_inner_key(error), key)
    mistake = usage_error(error)
    if isinstance(mistake, InvalidValueError) and not str(mistake.key).startswith(f"{inside}."):
        return mistake.under(inside)
    if mistake is not None:
        return mistake
    cause = error.__cause__
    return UsageError(str(cause), key=inside) if isinstance(cause, ImportError) else None


def _as_typed(inner: str, key: str) -> str:
    """The full key of a part of a node, whose own key may be in front of it already.

    >>> _as_typed("visa.card", "targets"), _as_typed("data.targets.visa", "data")
    ('targets.visa.card', 'targets.visa')
    """
    full = inner if f"{inner}.".startswith(f"{key}.") else f"{key}.{inner}" if inner else key
    for copy, original in COPIES.items():
        if f"{full}.".startswith(f"{copy}."):
            return original + full.removeprefix(copy)
    return full


def _inner_key(error: InstantiationException) -> str:
    """The part of a node in which building failed, as Hydra's message ends with it."""
    match = re.search(r"full_key: ([\w.\-+@]+)\s*$", str(error))
    return match[1] if match else ""


def renamed(target: str) -> str:
    """Today's name of what a configuration builds.

    >>> renamed("crane.models.Scoring"), renamed("torch.optim.Adam")
    ('crane.methods.Scoring', 'torch.optim.Adam')
    """
    for old, new in RENAMED.items():
        if target == old or (old.endswith(".") and target.startswith(old)):
            return new + target.removeprefix(old)
    return target


def from_file(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """A configuration read from a file, if it is harmless.

    Args:
        config: What was read; only plain values.
        origin: The file, for errors.

    Returns:
        The same with today's names, and with `OF_THE_COMMAND` left to the command.

    Raises:
        UsageError: It would build something that `FROM_FILES` does not allow, or refers to
            something beyond its own keys, such as the environment.

    >>> from_file({"scoring": {"blur_sigma": {"_target_": "os.system"}}}, "a.safetensors")
    Traceback (most recent call last):
    crane.errors.UsageError: a.safetensors wants to build os.system as scoring.blur_sigma, ...
    """
    return {str(name): _harmless(value, str(name), origin) for name, value in config.items()}


def _harmless(node: Any, key: str, origin: str) -> Any:
    if isinstance(node, Mapping):
        return dict(_harmless_items(node, key, origin))
    if isinstance(node, list):
        return [_harmless(value, f"{key}.{number}", origin) for number, value in enumerate(node)]
    if key.rpartition(".")[2] in OF_THE_COMMAND:
        return f"${{{key.rpartition('.')[2]}}}"
    if isinstance(node, str) and "${" in node and not REFERENCE.fullmatch(node):
        if key.startswith("method.detector.") and PARTS.fullmatch(node):
            return node
        raise UsageError(f"{origin} refers to {node} as {key}, which a file may not do", key=key)
    return node


def _harmless_items(node: Mapping[str, Any], key: str, origin: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if name == TARGET:
            target = renamed(str(value))
            if target not in FROM_FILES.get(key, ()):
                raise UsageError(
                    f"{origin} wants to build {target} as {key}, which a file may not do; "
                    f"if it is your own, type {key.partition('.')[0]}=… in the command",
                    key=key,
                )
            yield name, target
        elif name in SPECIAL and name != "_partial_" and name != "_convert_":
            raise UsageError(f"{origin} holds {key}.{name}, which a file may not do", key=key)
        else:
            yield str(name), _harmless(value, f"{key}.{name}", origin)
