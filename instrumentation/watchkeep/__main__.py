"""`python -m watchkeep` is the command `watchkeep`."""

import sys

from watchkeep.cli import main

if __name__ == "__main__":
    sys.exit(main())
