"""Every key that an error of these layers tells the user to change is a key that exists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import crane.methods
from crane.config import compose
from reference.build import composed

SOURCE = Path(crane.methods.__file__).parents[1]
LAYERS = ("attention", "backbones", "prompts", "scoring", "models")


def written(node: ast.expr) -> str:
    """A key as it stands in the source; names of the two states in it are `normal`."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "normal" for part in node.values)
        return "".join(parts)
    assert isinstance(node, ast.Constant), ast.dump(node)
    return node.value


def keys() -> Iterator[tuple[str, str]]:
    for layer in LAYERS:
        for path in sorted((SOURCE / layer).glob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "UsageError":
                    [key] = [word.value for word in call.keywords if word.arg == "key"]
                    place = f"{layer}/{path.name}:{call.lineno}"
                    yield from ((place, one) for one in written(key).split(" or "))


@pytest.mark.parametrize(("place", "key"), list(keys()))
def test_the_key_exists(place: str, key: str) -> None:
    config = composed("backbone=tiny", "method=crane_plus", "guide=tiny")
    if key == "checkpoint":
        config = compose("test", ["checkpoint=prompts.safetensors"])
    assert OmegaConf.select(config, key) is not None, f"{place} names {key}"
