"""The command line: the list of commands, and how their errors, warnings and interrupts are shown."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from typing import Any

import tyro

from stochnorm.cli.standard import lasting
from stochnorm.errors import reason_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.warning import show_warnings
from stochnorm.text import printable

__all__ = ["COMMANDS", "main", "parse"]

COMMANDS = {
    "inspect": "inspect.Inspect",
    "finetune": "finetune.Finetune",
    "predict": "predict.Predict",
    "evaluate": "evaluate.Evaluate",
    "export": "export.Export",
    "labels": "labels.Labels",
    "find-lr": "find_lr.FindLr",
    "tune": "tune.Tune",
    "compare": "compare.Compare",
    "paper": "paper.Paper",
    "report": "report.Report",
    "doctor": "doctor.Doctor",
    "ls": "ls.List",
    "verify": "data.Verify",
    "download": "data.Download",
    "lists": "data.Lists",
    "demo": "demo.Demo",
}
"""File and class of each command, in the order of `--help`. A command is a dataclass of its options with `run()`."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. An error is one line on standard error; STOCHNORM_TRACEBACK=1 shows its traceback instead.

    A command goes on where nobody reads its output any more (`| head`), or where it is closed. Where it cannot be
    written for another reason, such as a full disk, it goes on too, and that is the error at its end.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C; that of the command if it has its own.
    """
    args = sys.argv[1:] if args is None else list(args)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            _print_error(f"warning: {' '.join(str(message).split())}", style="yellow")

    with lasting() as output, show_warnings(show_warning):
        try:
            with _harmless_errors(args):
                command = parse(args)
            status = command.run() or 0
            output.flush()
        except KeyboardInterrupt as stop:
            _print_error(str(stop) or "stopped")
            if str(stop):
                _print_error(f"resume with: {_resume_command(args)}")
            return 130
        except Exception as error:
            if os.environ.get("STOCHNORM_TRACEBACK"):
                raise
            _print_error(f"error: {reason_of(error)}", style="red")
            return 1
        if output.complaint:
            _print_error(f"error: {output.complaint}", style="red")
            return 1
    return int(status)


def parse(args: Sequence[str]) -> Any:
    """Return the command that the arguments name, with its options.

    Raises:
        SystemExit: `--help` was printed, or an argument is wrong.
    """
    commands = {name: _command(name) for name in COMMANDS}
    description = "Fine-tune pre-trained ConvNets on small image data sets without over-fitting."
    command = tyro.extras.subcommand_cli_from_dict(commands, prog="stochnorm", description=description, args=args)
    kind = commands["finetune"]
    if isinstance(command, kind) and command.settings:  # parse again, with the settings of the file as defaults
        default = kind(**FinetuneConfig.load(command.settings).as_fields(), settings=command.settings)
        command = tyro.cli(kind, default=default, prog="stochnorm finetune", args=args[1:])
    if preset := getattr(command, "preset", ""):
        if getattr(command, "settings", ""):
            raise ValueError(f"--preset {preset} and --settings {command.settings} both give defaults; choose one")
        kind = type(command)
        default = kind(command.data, **kind.preset_defaults(preset), preset=preset)
        command = tyro.cli(kind, default=default, prog=f"stochnorm {args[0]}", args=args[1:])
    return command


def _command(name: str) -> Any:
    file, _, kind = COMMANDS[name].partition(".")
    return getattr(import_module(f"stochnorm.cli.{file}"), kind)


@contextmanager
def _harmless_errors(args: Sequence[str]) -> Iterator[None]:
    """Show what is said of wrong arguments without their control characters: `*.png` may have matched any name."""
    if all(map(str.isprintable, args)):
        yield
        return
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    finally:
        sys.stderr.write(printable(said.getvalue(), "\n"))


def _print_error(text: str, style: str | None = None) -> None:
    """Print a line on standard error."""
    try:
        from stochnorm.terminal import Terminal  # only here: help and wrong options need no rich

        Terminal(stderr=True, soft_wrap=True).print(text, style=style, markup=False)
    except (MemoryError, ImportError, OSError):  # too little memory for it
        sys.stderr.write(f"{printable(text)}\n")


def _resume_command(args: Sequence[str]) -> str:
    """Return the command that resumes an interrupted one."""
    again = [arg for arg in args if arg not in ("--overwrite", "--no-overwrite", "--resume", "--no-resume")]
    again += ["--resume"] if args[0] == "finetune" else []  # the other commands always resume
    # Processes that torchrun started do not know its options.
    start = "torchrun ... -m stochnorm" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else "stochnorm"
    return f"{start} {shlex.join(again)}"
