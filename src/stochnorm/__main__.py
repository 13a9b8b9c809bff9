"""`stochnorm` and `python -m stochnorm`: the command line, with one line for Ctrl-C while it is imported, too."""

import sys


def main() -> int:
    """Run one command; return its exit status."""
    try:
        from stochnorm.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
