"""`python -m regmix` is the command line."""

import sys

from regmix.cli import main

sys.exit(main())
