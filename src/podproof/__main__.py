"""`python -m podproof`: the same as the `podproof` command."""

import sys

from podproof.cli import main

if __name__ == "__main__":
    sys.exit(main())
