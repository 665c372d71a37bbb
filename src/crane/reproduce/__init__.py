"""Published tables and ablations, reproduced: recipes, plans, runs, results beside the paper's."""

from crane.reproduce.numbers import Number, collect, read_numbers, write_results
from crane.reproduce.plan import Cell, Changes, Cost, Plan, Planner, estimate, expand
from crane.reproduce.readme import SuiteResults, read_results, readme
from crane.reproduce.recipe import Recipe, RecipeRow, read_recipe
from crane.reproduce.resources import Suite, suites
from crane.reproduce.runner import Runner
