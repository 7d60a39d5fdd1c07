"""What is written to stdout and stderr, and how it gets there whole."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO, cast

__all__ = ["complain", "emit", "emit_json", "is_shown", "note", "plain"]

_TOKEN = re.compile(r"([a-z][a-z0-9_]*_[0-9A-Za-z]{16}_)[0-9A-Za-z]{40,}")


def emit(text: str) -> None:
    """Write text to stdout, to the last byte.

    Raises:
        OSError: It can't be written. Then stdout is given up, so that leaving does not fail again.
    """
    stream = cast("TextIO | None", sys.stdout)
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _abandon(stream)
        raise


def emit_json(value: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout, in ASCII whatever the locale.

    Raises:
        OSError: See :func:`emit`.
    """
    emit(json.dumps(value) + "\n")


def note(text: str) -> None:
    """Write to stderr what is not the answer itself; where nobody can read it, to nobody."""
    stream = cast("TextIO | None", sys.stderr)
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        _abandon(stream)


def complain(sentence: str) -> None:
    """Write an error to stderr: one line, without control characters, and without any token."""
    words = " ".join(sentence.split())
    note("keyguard: " + plain(_TOKEN.sub(r"\1***", words)))


def plain(text: str) -> str:
    """Return text with everything that could steer a terminal spelled as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def is_shown() -> bool:
    """Tell whether somebody reads stdout on a terminal."""
    stream = cast("TextIO | None", sys.stdout)
    return stream is not None and stream.isatty()


def _abandon(stream: TextIO) -> None:
    # What is left in its buffer would be written, and fail, once more when the process ends.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
