"""The published table beside a recipe."""

from collections.abc import Mapping

from crane.errors import UsageError
from crane.report import read_published
from crane.reproduce.recipe import Recipe

Values = Mapping[tuple[str, str], Mapping[str, float]]
"""Method and data set to metric to fraction."""


def published_values(recipe: Recipe) -> Values:
    """What is published; nothing where the recipe names no table.

    Raises:
        UsageError: There is no such table, or a row is compared with a method that it has not.
    """
    if recipe.published is None:
        values: Values = {}
    else:
        try:
            values = read_published(recipe.folder / recipe.published).values
        except UsageError as error:
            key = f"published in {recipe.path}"
            raise UsageError(error.wanted, error.got, key=key, hint=error.hint) from error
    methods = list(dict.fromkeys(method for method, _ in values))
    for row in recipe.rows:
        if row.published is not None and row.published not in methods:
            wanted = f"a method out of {', '.join(methods)}"
            if recipe.published is None:
                wanted = "no method where the recipe itself names no published table"
            key = f"published of row {row.name!r} in {recipe.path}"
            raise UsageError(wanted, row.published, key=key)
    return values


def published_metrics(recipe: Recipe) -> set[str]:
    """Those that are published for a row of the recipe, on whatever data set."""
    methods = {row.published for row in recipe.rows}
    values = published_values(recipe).items()
    return {metric for (method, _), found in values if method in methods for metric in found}
