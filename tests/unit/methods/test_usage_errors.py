"""Every key that an error of the model's layers names is a key that exists."""

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig, OmegaConf

import crane.methods
from crane.config import compose

SOURCE = Path(crane.methods.__file__).parents[1]
LAYERS = ("attention", "backbones", "guides", "prompts", "scoring", "methods", "cache", "training")
CONFIGURATIONS = (
    ("train", "backbone=tiny", "method=crane_plus", "guide=tiny"),
    ("test", "checkpoint=prompts.safetensors", "guide=dinov2_vitb14_reg"),
    ("train", "method=vand"),
    ("test", "method=winclip"),
    ("workspace", "entity=me", "datasets=[visa]"),
)


def written(node: ast.expr, module: ModuleType) -> str | None:
    """A key as the source writes it; None if it depends on more than the module's constants."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return getattr(module, node.id, None)
    if isinstance(node, ast.FormattedValue):
        return written(node.value, module)
    if isinstance(node, ast.JoinedStr):
        parts = [written(part, module) for part in node.values]
        return None if None in parts else "".join(map(str, parts))
    return None


def keys() -> Iterator[tuple[str, str]]:
    for layer in LAYERS:
        for path in sorted((SOURCE / layer).glob("*.py")):
            module = importlib.import_module(f"crane.{layer}.{path.stem}")
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "UsageError":
                    for word in call.keywords:
                        key = written(word.value, module) if word.arg == "key" else None
                        place = f"{layer}/{path.name}:{call.lineno}"
                        yield from ((place, one) for one in (key or "").split(" or ") if one)


@cache
def composed() -> list[DictConfig]:
    return [compose(command, overrides) for command, *overrides in CONFIGURATIONS]


@pytest.mark.parametrize(("place", "key"), list(keys()))
def test_the_key_exists(place: str, key: str) -> None:
    absent = object()
    found = [OmegaConf.select(one, key, default=absent) for one in composed()]
    assert any(one is not absent for one in found), f"{place} names {key}"
