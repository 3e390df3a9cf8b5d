"""Facade for custom recipes: ``from trainers.augment import Recipe, flips``. See ``trainers.images.augment``."""

from trainers.images.augment import RECIPES, Recipe, augment, colour, contest, find_recipe, flips, repeat, rich
from trainers.images.published import rand, trivial

__all__ = [
    "RECIPES",
    "Recipe",
    "augment",
    "colour",
    "contest",
    "find_recipe",
    "flips",
    "rand",
    "repeat",
    "rich",
    "trivial",
]
