"""Work on many runs that answers one question: comparisons of methods, searches of settings, timings.

This folder may import everything except recipes and cli; only cli imports it.
"""
