"""Work on many runs that answers one question: comparisons of methods, searches of settings, timings."""
