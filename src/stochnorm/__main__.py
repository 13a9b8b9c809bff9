"""`python -m stochnorm` is the command `stochnorm`."""

import sys

from stochnorm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
