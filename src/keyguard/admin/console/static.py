"""The style sheet and the module, under names that change with their content."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

_SPACES = (
    (" {", "{"),
    ("{ ", "{"),
    ("; }", "}"),
    (";}", "}"),
    (": ", ":"),
    ("; ", ";"),
    (", ", ","),
)
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class StaticFile(NamedTuple):
    """A file that pages load.

    Args:
        name: Its name with a hash of its content, ``console-1a2b3c4d5e6f.css``.
        media_type: Its media type.
        content: Its content.
    """

    name: str
    media_type: str
    content: bytes


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the files by their names without the hash."""
    found: dict[str, StaticFile] = {}
    for name in ("console.css", "console.js"):
        text = (files("keyguard.admin") / "static" / name).read_text("utf-8")
        stem, _, suffix = name.partition(".")
        if suffix == "css":
            text = _without_spaces(text)
        content = text.encode()
        hashed = f"{stem}-{sha256(content).hexdigest()[:12]}.{suffix}"
        found[name] = StaticFile(hashed, _TYPES[suffix], content)
    return found


def static_path(base: str, name: str) -> str:
    """Return the path of a file below the console's mount."""
    return f"{base}/static/{static_files()[name].name}"


def _without_spaces(sheet: str) -> str:
    """Return a style sheet without the spaces that only its readers need."""
    text = "".join(line.strip() for line in sheet.splitlines())
    for wide, narrow in _SPACES:
        text = text.replace(wide, narrow)
    return text
