"""Many runs, one question: comparisons of methods, searches of settings, timings.

May import everything but the command line, which alone imports it.
"""
