"""How commands run: errors of one line, exit codes, and Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, ClassVar, NoReturn

import click

from deel_dualview.plots.formatting import visible

FAILED_THRESHOLD, BAD_INPUT, INTERRUPTED = 1, 2, 130
_UNTIL_AGAIN = 0.1  # seconds, in which a callback ends


class CleanCommand(click.Command):
    """A command whose errors are one line each, unless `--debug` is given, and that Ctrl-C ends quietly.

    The exit code is what its function returns: 0 for None. Whatever else ends the function, an exit that the user's own
    code called among it, ends the command with another code, so that a check in continuous integration fails closed.
    """

    interrupted = "No report was written."
    options_of: ClassVar[dict[str, str]] = {}
    """The option by which an argument of the library is given, by the argument's name, for messages about it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn exceptions into messages and exit codes."""
        with _Interrupts() as interrupts:
            try:
                code = super().invoke(ctx)
            except BrokenPipeError:
                raise  # who read the output, as `head` does, has gone, and click ends quietly, with 1
            except click.ClickException as error:
                error.show()
                ctx.exit(BAD_INPUT)
            except (KeyboardInterrupt, click.Abort):
                self._end_interrupted(ctx)
            except BaseException as error:
                if ctx.params["debug"]:
                    traceback.print_exc()
                if interrupts.received:
                    self._end_interrupted(ctx)
                raise _BadInput(self._with_options(_one_line(error))) from None
        ctx.exit(code or 0)

    def _with_options(self, text: str) -> str:
        for argument, option in self.options_of.items():
            text = text.replace(f"`{argument}`", option)
        return text

    def _end_interrupted(self, ctx: click.Context) -> NoReturn:
        say(f"\nInterrupted. {self.interrupted}", err=True)
        ctx.exit(INTERRUPTED)


class _Interrupts:
    """Ctrl-C that is not lost while a command runs.

    KeyboardInterrupt is raised in whatever runs then. Out of a library it may come as another exception, so that
    `received` tells; in a callback of the garbage collector Python prints and drops it, so that it is raised again.
    """

    received = False

    def __enter__(self) -> _Interrupts:
        self._again: threading.Timer | None = None
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._dropped
        # Where Ctrl-C is ignored, or is another's, as in a notebook, it stays so.
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        if self._again is not None:
            self._again.cancel()
        sys.unraisablehook = self._hook
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _receive(self, number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        self.received = True
        raise KeyboardInterrupt

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not self._ours or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        self._again = threading.Timer(
            _UNTIL_AGAIN, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]
        )
        self._again.daemon = True
        self._again.start()


@contextlib.contextmanager
def steps_in_lines(progress: bool) -> Iterator[None]:
    """Write a line for each step of an audit where no bar can show it, as in the log of continuous integration."""
    if not progress or sys.stderr.isatty():
        yield
        return
    logger, handler = logging.getLogger("deel_dualview.steps"), _Lines()
    level, is_passed_on = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = is_passed_on


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say_step(record.getMessage(), progress=True)


def say_step(name: str, *, progress: bool) -> None:
    """Write a line for a step, unless a terminal shows it by a bar."""
    if progress and not sys.stderr.isatty():
        say(f"{name} ...", err=True)


def say(text: str, *, err: bool = False) -> None:
    """Print text: names in it cannot move the cursor, and what the terminal cannot encode is escaped."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    click.echo(visible(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding), err=err)


class _BadInput(click.ClickException):
    """An error of the user's: one line, and an exit code that differs from a failed threshold's."""

    exit_code = BAD_INPUT


def _one_line(error: BaseException) -> str:
    """Write an error as one line; the type is named where it is not one of ours to users."""
    if isinstance(error, (SystemExit, click.exceptions.Exit)):
        code = error.code if isinstance(error, SystemExit) else error.exit_code
        return (
            f"Code of yours, or of a library, ended the command: sys.exit({code!r}). (--debug shows where.)"
        )
    # TensorFlow puts the traceback of a function of the user's into its message.
    text = str(error).split("Traceback (most recent call last)")[0]
    text = visible(" ".join(text.split())) or "no message"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where.)"


class Size(click.ParamType[int]):
    """A number of bytes: 500MB, 2G, 1.5GiB, 2e9; without a unit a million at least, since "2" means no 2 bytes."""

    name = "SIZE"
    _LEAST_ALONE = 10**6
    _UNITS: ClassVar = {"": 1, "B": 1} | {
        prefix + unit: size**power
        for power, prefix in enumerate("KMGT", start=1)
        for unit, size in {"": 10**3, "B": 10**3, "I": 2**10, "IB": 2**10}.items()
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)", str(value).strip(), re.IGNORECASE)
        unit = None if found is None else self._UNITS.get(found[2].upper())
        least = 1 if found is not None and found[2] else self._LEAST_ALONE
        try:
            size = None if found is None or unit is None else int(float(found[1]) * unit)
        except (ValueError, OverflowError):
            size = None
        if size is None or size < least:
            self.fail(f"{value!r} is no size, such as 500MB or 2GB.", param, ctx)
        return size
