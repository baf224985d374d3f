"""The command line: commands, their flags and what the terminal shows.

entry, quick, table, help_pages and help_texts import nothing heavy.
"""

from regmix.cli.entry import main

__all__ = ["main"]
