"""``python -m neurosweep``."""

import sys

from search.commands.main import program

if __name__ == "__main__":
    sys.exit(program())
