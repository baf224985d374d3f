"""Searches over settings: the space of settings, the engines that choose points of it, and the ranking of the points.

This folder may import what studies may; only cli imports it.
"""

from regmix.studies.sweep.engines import Engine
from regmix.studies.sweep.search import search
from regmix.studies.sweep.space import Axis, Point, grid, parse_space, typed

__all__ = ["Axis", "Engine", "Point", "grid", "parse_space", "search", "typed"]
