"""Run the command line: `python -m stochnorm.cli`, the same as `python -m stochnorm`."""

import sys

from stochnorm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
