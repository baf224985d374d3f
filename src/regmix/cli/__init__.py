"""The command line: commands, their flags and what the terminal shows.

May import everything; nothing imports it.
"""

from regmix.cli.entry import main

__all__ = ["main"]
