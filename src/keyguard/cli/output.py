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

from keyguard.core.texts import escaped

TOKEN = re.compile(r"(?P<shown>[a-z][a-z0-9_]*_(?P<id>[0-9A-Za-z]{16})_)[0-9A-Za-z]{40,}")


def emit(text: str) -> None:
    """Write text to stdout, to the last byte."""
    _write(sys.stdout, text)


def emit_json(value: Mapping[str, object]) -> None:
    """Write one JSON document to stdout, in ASCII."""
    emit(json.dumps(value) + "\n")


def note(text: str) -> None:
    """Write a line to stderr. If stderr can't be written, the line is dropped."""
    with suppress(OSError):
        _write(sys.stderr, f"{text}\n")


def complain(sentence: str) -> None:
    """Write an error to stderr as one line, without control characters and tokens."""
    words = " ".join(sentence.split())
    note("keyguard: " + escaped(TOKEN.sub(r"\g<shown>***", words)))


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream of this process is a terminal; a closed one is None."""
    return stream is not None and stream.isatty()


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Python flushes the stream once more at exit, which would fail again.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        raise
