"""Facade for custom recipes: ``from trainers.augment import Recipe, flips``. See ``trainers.images.augment``."""

from trainers.images.augment import RECIPES, Recipe, augment, colour, contest, find_recipe, flips, repeat, rich
from trainers.images.published import crop, erase, inception, rand, trivial

__all__ = [
    "RECIPES",
    "Recipe",
    "augment",
    "colour",
    "contest",
    "crop",
    "erase",
    "find_recipe",
    "flips",
    "inception",
    "rand",
    "repeat",
    "rich",
    "trivial",
]
