"""Facade for own recipes: ``from trainers.augment import Recipe``. Defined in ``trainers.images.augment``."""

from trainers.images.augment import Recipe

__all__ = ["Recipe"]
