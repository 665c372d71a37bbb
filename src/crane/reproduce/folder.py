"""A recipe as its folder holds it."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from crane.errors import UsageError
from crane.reproduce.checks import check_recipe
from crane.reproduce.reading import made
from crane.reproduce.recipe import RECIPE, Recipe


def read_recipe(folder: Path) -> Recipe:
    """Read `recipe.yaml` of a folder, and check all that can be checked before it is run.

    Raises:
        UsageError: There is none, or it says something that recipes do not.
    """
    path = folder.expanduser().resolve() / RECIPE
    if not path.is_file():
        raise UsageError(f"a folder with {RECIPE}", str(folder), key="experiments")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("YAML", str(path), hint=" ".join(str(error).split())) from error
    if not isinstance(content, Mapping):
        raise UsageError("keys and values", type(content).__name__, key=str(path))
    recipe = made(Recipe, content, path, given={"folder": path.parent})
    check_recipe(recipe)
    return recipe
