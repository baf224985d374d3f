"""`python -m regmix` is the command line."""

import sys

from regmix.cli.entry import main

sys.exit(main())
