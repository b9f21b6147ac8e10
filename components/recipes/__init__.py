"""Named recipes: functions that return one frozen configuration of the whole graph.

A recipe's docstring gives the command, the hardware, the duration and the figures to expect, as measured.
"""

import difflib
from collections.abc import Callable, Mapping

from .base import base
from .paper import paper
from .recipe import Recipe, RecipeError
from .smoke import smoke
from .tiny import tiny

RECIPES: dict[str, Callable[[], Recipe]] = {"smoke": smoke, "tiny": tiny, "base": base, "paper": paper}


def load_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """A recipe by name with dotted overrides; :class:`RecipeError` names what is allowed."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}{hint}")
    return RECIPES[name]().with_overrides(overrides or {})
