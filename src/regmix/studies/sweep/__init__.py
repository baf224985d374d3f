"""Searches over settings: their space, the engines that choose points of it, and the ranking of the points."""

from regmix.studies.sweep.engines import Budget, Engine
from regmix.studies.sweep.search import search, write_page
from regmix.studies.sweep.space import Axis, Point, grid, parse_space, typed

__all__ = ["Axis", "Budget", "Engine", "Point", "grid", "parse_space", "search", "typed", "write_page"]
