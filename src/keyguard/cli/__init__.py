"""The command line: ``keyguard``, built on the sync guard.

What belongs here: reading arguments, and words and tables for people. Each module has one topic;
``app`` assembles them and turns each error into one sentence. The guard makes all decisions.
"""

from __future__ import annotations

import sys

from keyguard.exceptions import MissingExtraError

__all__ = ["main"]

EXTRA = {"rich", "typer"}  # the packages of the extra


def main() -> None:
    """Run the command line on this process's arguments, and exit with its exit code."""
    try:
        from keyguard.cli.app import run
    except ImportError as failure:
        if (failure.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write(f"{MissingExtraError('The command line', 'cli')}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
