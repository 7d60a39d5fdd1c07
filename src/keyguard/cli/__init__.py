"""The command line: ``keyguard``, built on the sync guard.

What belongs here: reading arguments, and words and tables for people. Each module has one topic;
``app`` assembles them and turns each error into one sentence. The guard makes all decisions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from keyguard.exceptions import MissingExtraError

__all__ = ["main"]

_EXTRA = ("typer", "rich")  # the packages of the extra


def load_program(what: str) -> Callable[..., int]:
    """Import the program, and return the function that runs it.

    Args:
        what: What asks for it, for the message of the error.

    Raises:
        MissingExtraError: A package of the extra is not installed.
    """
    for package in _EXTRA:
        try:
            import_module(package)
        except ModuleNotFoundError as failure:
            if failure.name != package:
                raise
            raise MissingExtraError(what, "cli") from None
    from keyguard.cli.app import run

    return run


def main() -> None:
    """Run the command line on this process's arguments, and exit with its exit code."""
    try:
        run = load_program("The command line")
    except MissingExtraError as missing:
        sys.stderr.write(f"{missing}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
