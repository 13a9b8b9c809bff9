"""The command line. The only module that parses arguments; what each command does stands in ``commands/``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from stochnorm import cli
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.warning import show_warnings

__all__ = ["main"]

Command = (
    Annotated[cli.Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[cli.Predict, tyro.conf.subcommand("predict")]
    | Annotated[cli.Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[cli.Tune, tyro.conf.subcommand("tune")]
    | Annotated[cli.Compare, tyro.conf.subcommand("compare")]
    | Annotated[cli.Paper, tyro.conf.subcommand("paper")]
    | Annotated[cli.Report, tyro.conf.subcommand("report")]
    | Annotated[cli.Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[cli.List, tyro.conf.subcommand("ls")]
    | Annotated[cli.Verify, tyro.conf.subcommand("verify")]
    | Annotated[cli.Download, tyro.conf.subcommand("download")]
    | Annotated[cli.Lists, tyro.conf.subcommand("lists")]
    | Annotated[cli.Demo, tyro.conf.subcommand("demo")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. Errors are a line on standard error, without a traceback unless STOCHNORM_TRACEBACK is set.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    args = sys.argv[1:] if args is None else list(args)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            _say(f"warning: {message}", style="yellow")

    with show_warnings(show_warning):
        try:
            _parse(args).run()
        except KeyboardInterrupt as stop:
            _say(str(stop) or "stopped")
            if str(stop):
                _say(f"go on with: {_again(args)}")
            return 130
        except Exception as error:
            if os.environ.get("STOCHNORM_TRACEBACK"):
                raise
            expected = isinstance(error, (ValueError, OSError, ArithmeticError, ImportError))
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            _say(f"error: {_one_line(error, text)}", style="red")
            return 1
    return 0


def _say(text: str, style: str | None = None) -> None:
    """Print a line on standard error."""
    from rich.console import Console  # not before it is needed: help and wrong options do without

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style=style, markup=False)


def _parse(args: Sequence[str]) -> Any:
    options: dict[str, Any] = {"prog": "stochnorm"}
    description = "Fine-tune pre-trained ConvNets on small image data sets without over-fitting."
    command: Any = tyro.cli(Command, description=description, args=args, **options)
    if isinstance(command, cli.Finetune) and command.settings:  # over again, with the file's as defaults
        default = cli.Finetune(**FinetuneConfig.load(command.settings).as_fields(), settings=command.settings)
        options["prog"] = "stochnorm finetune"
        command = tyro.cli(cli.Finetune, default=default, args=args[1:], **options)
    return command


def _again(args: Sequence[str]) -> str:
    """The command that goes on with an interrupted run."""
    again = [arg for arg in args if arg not in ("--overwrite", "--no-overwrite", "--resume", "--no-resume")]
    again += ["--resume"] if args[0] == "finetune" else []  # the others go on by themselves
    # Processes that torchrun started do not know its options.
    start = "torchrun ... -m stochnorm" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else "stochnorm"
    return f"{start} {shlex.join(again)}"


def _one_line(error: Exception, text: str) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
