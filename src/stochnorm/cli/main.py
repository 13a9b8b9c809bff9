"""The command line: the list of commands, and how their errors, warnings and interrupts are shown."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.metadata import version
from typing import Any

import tyro

from stochnorm.cli.help import has_short_help, show_short_help
from stochnorm.cli.standard import lasting
from stochnorm.cli.words import WrongWordsError, known_command, known_options
from stochnorm.errors import reason_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.warning import show_warnings
from stochnorm.text import printable

__all__ = ["COMMANDS", "in_our_words", "main", "parse"]

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
    "runs": "runs.Runs",
    "clean": "clean.Clean",
    "env": "env.Env",
}
"""File and class of each command, in the order of `--help`. A command is a dataclass of its options with `run()`."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. An error is one line on standard error; STOCHNORM_TRACEBACK=1 shows its traceback instead.

    A command goes on where nobody reads its output any more (`| head`), or where it is closed. Where it cannot be
    written for another reason, such as a full disk, it goes on too, and that is the error at its end.

    Returns:
        The exit status: 0, 1 after an error, 2 for a wrong command or option, 130 after Ctrl-C; that of the command if
        it has its own.
    """
    args = sys.argv[1:] if args is None else list(args)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            _print_error(f"warning: {' '.join(str(message).split())}", style="yellow")

    with lasting() as output, show_warnings(show_warning):
        try:
            with _harmless_errors(args):
                args = in_our_words(args)
                command = parse(args)
            status = command.run() or 0
            output.flush()
        except KeyboardInterrupt as stop:
            _print_error(str(stop) or "stopped")
            if str(stop):
                _print_error(f"resume with: {_resume_command(args)}")
            return 130
        except WrongWordsError as error:
            _print_error(f"error: {error}; stochnorm --help lists the commands, stochnorm COMMAND --help their options")
            return 2
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
    args = in_our_words(args)
    if not args or args[0] not in COMMANDS:
        return _parse_without_command(args)
    kind, prog = _command(args[0]), f"stochnorm {args[0]}"
    if has_short_help(kind) and not {"-h", "--help"}.isdisjoint(args):
        show_short_help(kind, prog)
    everything = ["--help" if arg == "--help-all" else arg for arg in args[1:]]
    command = tyro.cli(kind, prog=prog, args=everything)
    if getattr(command, "settings", "") and args[0] == "finetune":  # again, with those of the file as defaults
        default = kind(**FinetuneConfig.load(command.settings).as_fields(), settings=command.settings)
        command = tyro.cli(kind, default=default, prog=prog, args=args[1:])
    if preset := getattr(command, "preset", ""):
        if getattr(command, "settings", ""):
            raise ValueError(f"--preset {preset} and --settings {command.settings} both give defaults; choose one")
        kind = type(command)
        default = kind(command.data, **kind.preset_defaults(preset), preset=preset)
        command = tyro.cli(kind, default=default, prog=prog, args=args[1:])
    return command


def in_our_words(args: Sequence[str]) -> list[str]:
    """Return the arguments with our names of the command and of its options; see [stochnorm.cli.words][].

    Raises:
        WrongWordsError: There is no such command, or no such option, and it is known what is meant.
    """
    if not args or args[0].startswith("-"):
        return list(args)
    name = known_command(args[0], COMMANDS)
    return [name, *known_options(_command(name), args[1:])]


def _parse_without_command(args: Sequence[str]) -> Any:
    """Show the version or the list of commands, or write a completion for the shell."""
    if "--version" in args:
        sys.stdout.write(f"stochnorm {version('stochnorm')}\n")
        raise SystemExit(0)
    commands = {name: _command(name) for name in COMMANDS}
    description = "Fine-tune pre-trained ConvNets on small image data sets without over-fitting."
    return tyro.extras.subcommand_cli_from_dict(commands, prog="stochnorm", description=description, args=args)


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
