"""Searches over settings: what there is to try, the engines that try it, and the ranking of what was tried."""

from regmix.sweeps.engines import Engine
from regmix.sweeps.search import search
from regmix.sweeps.space import Axis, Point, grid, parse_space, typed

__all__ = ["Axis", "Engine", "Point", "grid", "parse_space", "search", "typed"]
