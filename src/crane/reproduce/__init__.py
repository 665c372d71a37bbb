"""Published tables and ablations made again: recipes, plans, runs, and results beside the paper."""

from crane.reproduce.cells import Cell, Changes, expand
from crane.reproduce.cost import Cost
from crane.reproduce.folder import read_recipe
from crane.reproduce.gather import Gathering, TableNames
from crane.reproduce.numbers import Number, read_numbers, write_numbers
from crane.reproduce.plan import Places, Plan, Planner
from crane.reproduce.readme import readme
from crane.reproduce.recipe import Recipe, Row
from crane.reproduce.runner import Runner
from crane.reproduce.suite import Suite

__all__ = [
    "Cell",
    "Changes",
    "Cost",
    "Gathering",
    "Number",
    "Places",
    "Plan",
    "Planner",
    "Recipe",
    "Row",
    "Runner",
    "Suite",
    "TableNames",
    "expand",
    "read_numbers",
    "read_recipe",
    "readme",
    "write_numbers",
]
