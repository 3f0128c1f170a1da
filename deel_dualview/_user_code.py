"""Modules and functions of the user's: imported from the current directory too, with errors that say whose they are."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def import_module(name: str, option: str) -> ModuleType:
    """Import a module, from the current directory too.

    Args:
        name: as in an import statement.
        option: the option that it came by, such as `"--import"`, for messages.

    Raises:
        ModuleNotFoundError: there is no module of that name.
        ValueError: the module needs another one that is missing, or its code raised an error or called `sys.exit`.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with named_errors(f"{option}: importing {name}", ModuleNotFoundError):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{option}: {name} needs a module that is missing ({error}).") from error


def import_registering(names: tuple[str, ...]) -> None:
    """Import modules for what they register with Keras (`--import`).

    Raises:
        ValueError: no name of a module, no such module, or its code raised an error or called `sys.exit`.
    """
    for name in names:
        if not _MODULE.fullmatch(name):
            raise ValueError(f"--import takes a module as in `import my_layers`. Received: {name!r}.")
        try:
            import_module(name, "--import")
        except ModuleNotFoundError as error:
            hint = f" Without its ending: {name[:-3]}." if name.endswith(".py") else ""
            raise ValueError(
                f"--import: there is no module {error.name!r}, in the current directory either.{hint}"
            ) from error


@contextlib.contextmanager
def named_errors(what: str, *passed: type[BaseException]) -> Iterator[None]:
    """Turn what the user's code raises into a ValueError that says which code it was; Ctrl-C passes.

    A `sys.exit(0)` there must not end a command with 0, so exits are errors as well.

    Args:
        what: the code, as the subject of a sentence.
        *passed: exceptions that pass as they are.

    Raises:
        ValueError: whatever else the code raised.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{what} called sys.exit({error.code!r}): it must not end the program.") from error
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, *passed)):
            raise
        raise ValueError(f"{what} raised {type(error).__name__}: {first_line(str(error))}") from error


def first_line(text: str) -> str:
    """Return the first line of a message."""
    lines = text.strip().splitlines()
    return lines[0] if lines else "no message"
