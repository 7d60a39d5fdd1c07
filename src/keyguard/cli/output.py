"""Writing to stdout and stderr: completely, without tokens in errors or control characters."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

TOKEN = re.compile(r"(?P<shown>[a-z][a-z0-9_]*_(?P<id>[0-9A-Za-z]{16})_)[0-9A-Za-z]{40,}")


def emit(text: str) -> None:
    """Write text to stdout, to the last byte.

    Raises:
        OSError: The text can't be written. Stdout is then replaced, so that the flush at exit does
            not fail as well.
    """
    stream: TextIO | None = sys.stdout
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _abandon(stream)
        raise


def emit_json(value: Mapping[str, object]) -> None:
    """Write one JSON document to stdout, in ASCII."""
    emit(json.dumps(value) + "\n")


def note(text: str) -> None:
    """Write a line to stderr. If stderr can't be written, the line is dropped."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        _abandon(stream)


def complain(sentence: str) -> None:
    """Write an error to stderr as one line, without control characters and tokens."""
    words = " ".join(sentence.split())
    note("keyguard: " + plain(TOKEN.sub(r"\g<shown>***", words)))


def plain(text: str) -> str:
    """Return text in which each control character is replaced by its escape sequence."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream of this process is a terminal; one that was closed is None."""
    return stream is not None and stream.isatty()


def _abandon(stream: TextIO) -> None:
    # Python flushes the stream once more at exit, which would fail again.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
