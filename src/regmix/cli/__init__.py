"""The command line: commands, their flags and what the terminal shows.

May import everything; nothing imports it. entry, quick, table, help_pages and help_texts import nothing heavy.
"""

from regmix.cli.entry import main

__all__ = ["main"]
