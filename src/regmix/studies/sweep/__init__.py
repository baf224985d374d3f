"""Searches over settings: what there is to try, the engines that try it, and the ranking of what was tried."""

from regmix.studies.sweep.engines import Engine
from regmix.studies.sweep.search import search
from regmix.studies.sweep.space import Axis, Point, grid, parse_space, typed

__all__ = ["Axis", "Engine", "Point", "grid", "parse_space", "search", "typed"]
