"""How commands run: errors of one line, exit codes, and Ctrl-C."""

from __future__ import annotations

import traceback
from typing import Any

import click

FAILED_THRESHOLD, BAD_INPUT, INTERRUPTED = 1, 2, 130


class CleanCommand(click.Command):
    """A command whose errors are one line each, unless `--debug` is given, and that Ctrl-C ends quietly."""

    interrupted = "No report was written."

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn exceptions into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise  # the last: who read the output, as `head` does, has gone, and click ends quietly
        except (KeyboardInterrupt, click.Abort):
            click.echo(f"\nInterrupted. {self.interrupted}", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise _BadInput(_one_line(error)) from None


class _BadInput(click.ClickException):
    """An error of the user's: one line, and an exit code that differs from a failed threshold's."""

    exit_code = BAD_INPUT


def _one_line(error: Exception) -> str:
    """Write an error as one line; the type is named where it is not one of ours to users."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where.)"
