"""The types of configuration keys that no constructor takes.

Keys below a `_target_` are checked against that constructor's signature by `crane.gate`; all
others are declared here, once, and checked before a command imports anything heavy.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Len

from crane.checks import (
    Fraction,
    Ge,
    Interval,
    MinLen,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Seed,
    Text,
    check_value,
)

Auto = Literal["auto"]
StoredType = Literal["float32", "float16", "bfloat16"]
When = Literal["never", "pays", "always"]
Paths = PathText | Annotated[list[PathText], MinLen(1), "a list of paths"]
Betas = Annotated[
    list[Annotated[float, Interval(ge=0, lt=1)]],
    Len(2, 2),
    "a list of two numbers from 0 to below 1",
]
Entries = Annotated[list[Text], MinLen(1)]

TYPES: Mapping[str, Any] = {
    # What commands share: conf/base/run.yaml and results.yaml.
    "seed": Seed,
    "image_size": PositiveInt,
    "max_megapixels": PositiveFloat,
    "datasets_dir": PathText,
    "weights_dir": PathText,
    "allow_download": bool,
    "compile": Literal["none", "default", "reduce-overhead", "max-autotune"],
    "run_dir": PathText,
    "table_columns": list[Text],
    "results_store": PathText | None,
    "skip_finished": bool,
    "baseline": Text | None,
    "objective": Text,
    # train and test
    "resume": PathText | None,
    "epoch": PositiveInt | Literal["last", "best"],
    "monitor": Text,
    "test": bool,
    "checkpoint": PathText | None,
    "trainer.max_epochs": PositiveInt,
    "trainer.max_steps": Annotated[int, Ge(-1)],
    "trainer.gradient_clip_val": NonNegativeFloat | None,
    "trainer.limit_test_batches": Annotated[None, "null: every image is tested"],
    "optimizer.lr": PositiveFloat,
    "optimizer.betas": Betas,
    "optimizer.weight_decay": NonNegativeFloat,
    "scheduler": Annotated[None, "an option of the group scheduler"],
    "callbacks": dict[str, Text],
    "method.name": Text,
    "method.checkpoints": Text,
    "data.resizer": Literal["pil", "pil_bilinear", "torch"],
    "backbone.image_size": PositiveInt,
    "backbone.num_attention_blocks": NonNegativeInt,
    "backbone.taps": list[PositiveInt],
    "cache.folder": PathText,
    "cache.dtype": StoredType,
    "cache.source": When,
    "cache.targets": When,
    "overlay.alpha": Fraction,
    "overlay.choose": Literal["random", "best", "worst"],
    "overlay.num_*": NonNegativeInt,
    "overlay.gallery.num_*": NonNegativeInt,
    "overlay.tile": PositiveInt,
    # predict
    "class_name": Text,
    "input": Paths,
    "output": PathText,
    "overwrite": bool,
    "engine": Literal["local", "ray"],
    "scores": Literal["csv", "parquet"],
    "part_size": PositiveInt,
    "precision": Literal["32-true", "bf16-mixed", "16-mixed"],
    "batch_size": PositiveInt,
    "num_workers": NonNegativeInt | Auto,
    "white_level": Annotated[int, Interval(ge=1, le=65535)] | None,
    "on_error": Literal["skip", "fail"],
    "maps": Literal["png", "npy", "none"],
    "overlays": Literal["jpg", "png", "none"],
    "threshold": Fraction | None,
    "calibration.input": Paths | None,
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "watch": bool,
    "poll_seconds": PositiveFloat,
    "give_up_seconds": NonNegativeFloat,
    "on_verdict": Text | Entries | None,
    # serve
    "host": Literal["127.0.0.1", "0.0.0.0", "::"],
    "port": Annotated[int, Interval(ge=1024, le=65535)],
    "devices": PositiveInt | Auto,
    "workers_per_device": PositiveInt,
    "max_batch_size": PositiveInt,
    "batch_timeout": NonNegativeFloat,
    "max_queue": PositiveInt,
    "timeout": PositiveFloat,
    "max_body_mb": PositiveFloat,
    "max_pixels": PositiveInt,
    # app
    "checkpoints": Entries,
    "attentions": list[Text],
    "share": bool,
    "max_images": PositiveInt,
    # export
    "format": Literal["onnx", "torch_export", "openvino"],
    "size": Annotated[list[PositiveInt], Len(2, 2), "a list of height and width"] | None,
    # data and cache
    "action": Text,
    "fast": bool,
    "archive": PathText | None,
    "write_images": PathText | None,
    "folder": PathText,
    "entries": list[Text],
    "unused_days": NonNegativeFloat | None,
    "max_gb": NonNegativeFloat | None,
    # report, reproduce, workspace
    "paths": Entries,
    "title": str,
    "columns": Entries,
    "published": PathText | None,
    "max_pictures": NonNegativeInt,
    "figures": Literal["pdf", "svg", "png"] | None,
    "experiments": Annotated[list[Text], MinLen(1), "a list of folders with a recipe.yaml"],
    "plan_only": bool,
    "seeds": list[Seed] | None,
    "overrides": str,
    "train": str,
    "checkpoints_dir": PathText,
    "entity": Text,
    "project": Text,
    "name": Text,
    "datasets": Entries,
    "panels": Entries,
}
"""A key, or a pattern of keys, and its type."""

OF_COMMANDS: Mapping[str, Mapping[str, Any]] = {
    "data": {"image_size": PositiveInt | None},
    "export": {
        "precision": Literal["fp32", "fp16", "int8"],
        "input": Paths | None,
        "output": PathText | None,
    },
    "cache": {"dtype": StoredType, "source": When, "targets": When},
}
"""The types that differ for one command."""


def declared(command: str, key: str) -> Any | None:
    """The declared type of a key; None if a constructor takes it.

    Args:
        command: The command that is configured.
        key: The full key.

    >>> declared("train", "overlay.tile") == PositiveInt, declared("train", "scoring.blur_sigma")
    (True, None)
    """
    return _declared(key, OF_COMMANDS.get(command, {}).get(key))


@cache
def _declared(key: str, own: Any) -> Any | None:
    if own is not None or key in TYPES:
        return own or TYPES[key]
    return next((type_ for row, type_ in TYPES.items() if fnmatchcase(key, row)), None)


def is_text(command: str, key: str) -> bool:
    """Whether a key takes text however it looks, such as a title `2024`.

    >>> is_text("report", "title"), is_text("train", "resume"), is_text("train", "epoch")
    (True, True, False)
    """
    type_ = declared(command, key)
    if type_ is None:
        return False
    kinds = [get_origin(kind) or kind for kind in _kinds(type_)]
    return str in kinds and set(kinds) <= {str, NoneType, list}


def is_list(command: str, key: str) -> bool:
    """Whether a key takes nothing but a list.

    >>> is_list("report", "columns"), is_list("predict", "input"), is_list("train", "seed")
    (True, False, False)
    """
    return {get_origin(kind) for kind in _kinds(declared(command, key))} == {list}


def _kinds(type_: Any) -> list[Any]:
    """The types that a union allows, without their ranges."""
    members = get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)
    return [get_args(m)[0] if get_origin(m) is Annotated else m for m in members]


def check(command: str, values: Mapping[str, Any]) -> None:
    """Check values against their declared types.

    Args:
        command: The command that is configured.
        values: Full key to value; keys that are not declared here are left out.

    Raises:
        UsageError: One does not fit; names its key.

    >>> check("train", {"seed": 1.5})
    Traceback (most recent call last):
    crane.errors.InvalidValueError: seed must be an integer from 0 to 4294967295, not 1.5
    """
    for key, value in values.items():
        type_ = declared(command, key)
        if type_ is not None:
            check_value(value, type_, key)
