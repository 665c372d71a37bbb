"""A recipe as its folder holds it."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from crane.errors import UsageError
from crane.reproduce.checks import check_recipe
from crane.reproduce.reading import made
from crane.reproduce.recipe import RECIPE, Recipe


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            problem = f"the key {twice[0]} stands twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(folder: Path) -> Recipe:
    """Read `recipe.yaml` of a folder, and check all that can be checked before it is run.

    Raises:
        UsageError: There is none, or it says something that recipes do not.
    """
    path = folder.expanduser().resolve() / RECIPE
    if not path.is_file():
        raise UsageError(f"a folder with {RECIPE}", str(folder), key="experiments")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("YAML", str(path), hint=" ".join(str(error).split())) from error
    if not isinstance(content, Mapping):
        raise UsageError("keys and values", type(content).__name__, key=str(path))
    recipe = made(Recipe, content, path, given={"folder": path.parent})
    check_recipe(recipe)
    return recipe
