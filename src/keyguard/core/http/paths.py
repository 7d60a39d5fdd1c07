"""Paths: the path that a router sees, ambiguous paths, and path templates.

A template is the syntax that the routers of Python's frameworks share::

    /v1/models                  that path
    /v1/models/{model_id}       any one segment in place of the parameter
    /static/{path:path}         anything below, at the end only
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import product

from keyguard.exceptions import InvalidValueError, shown

# If a server decodes these before it routes, two parties may read the path differently.
# Some servers do not count what follows ";" as part of a segment.
_AMBIGUOUS_RAW = re.compile(
    rb"%(2f|5c|00|2e)|[\\\x00-\x20\x7f]|//|/\.{1,2}(;[^/]*)?(/|\Z)|\A[^/]", re.IGNORECASE
)
# The same for a decoded path. An escape that is left in it was escaped twice.
_AMBIGUOUS = re.compile(
    r"%[0-9a-f]{2}|[\\\x00-\x1f\x7f\ufffd\ud800-\udfff]|//|/\.{1,2}(;[^/]*)?(/|\Z)|\A(?!/)",
    re.IGNORECASE,
)
# The patterns below are compiled at the first ambiguous path. What makes a path ambiguous besides
# its slashes. Nobody can list all readings of such a path.
_BEYOND_SLASHES_RAW = rb"(?i)%(5c|00|2e)|[\\\x00-\x20\x7f]|\A[^/]"
_BEYOND_SLASHES = "(?i)" + _AMBIGUOUS.pattern.replace("|//|", "|") + "|;"
_ENCODED_SLASH = rb"(?i)%2f"
_ESCAPE = rb"(?i)%([0-9a-f]{2})"
_NO_SEPARATOR = "\x00"  # an encoded slash that is read as a character of its segment
_SLASHES = r"([/\x00]{2,}|\x00)"
_MOST_SLASHES, _LONGEST_PATH = 3, 2000  # so that such a request costs little more than others
_LITERAL = r"[^/\\?#%*{}<>\[\]^|\"`\x00-\x20\x7f\ud800-\udfff\ufffd]+\Z"
_PARAMETERS = "a parameter is a whole segment, {name}, or at the end {name:path}"
_PARAMETER = r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}\Z"

SEGMENT = "{}"
"""Any segment, in a parsed template."""
REST = "{:path}"
"""Any rest of a path, in a parsed template."""


def is_ambiguous(path: str, raw_path: bytes | None) -> bool:
    """Return whether two parties may read a path differently.

    Such paths have encoded slashes, dot segments, empty segments, backslashes, control characters,
    or bytes that are not UTF-8, or are no path at all (``*``, the absolute form).

    Args:
        path: The decoded path that the router sees.
        raw_path: The path on the request line, without the query, or None if the server does not
            provide it.
    """
    return bool(_AMBIGUOUS.search(path) or (raw_path and _AMBIGUOUS_RAW.search(raw_path)))


def readings(path: str, raw_path: bytes | None) -> list[str] | None:
    """Return all readings of a path whose only ambiguity is its slashes.

    An encoded slash separates segments or is a character of one, an empty segment stays or is
    dropped, and what follows two slashes at the beginning may be taken for a host. Each slash is
    read in each way, independently of the others.

    Args:
        path: The decoded path that the router sees.
        raw_path: The path on the request line, without the query, or None if the server does not
            provide it.

    Returns:
        The paths, with NUL for a slash that does not separate segments. None if they can't be
        listed: the path is ambiguous in other ways, is not that of the request line, has more than
        3 such slashes or more than 2,000 characters.
    """
    if len(path) > _LONGEST_PATH or re.search(_BEYOND_SLASHES, path):
        return None
    marked = path
    if raw_path:
        if re.search(_BEYOND_SLASHES_RAW, raw_path):
            return None
        sent = re.sub(_ENCODED_SLASH, b"%00", raw_path)
        sent = re.sub(_ESCAPE, lambda escape: bytes([int(escape[1], 16)]), sent)
        marked = sent.decode("utf-8", "replace")
        if marked.replace(_NO_SEPARATOR, "/") != path:
            return None
    parts = re.split(_SLASHES, marked)  # every other part is a run of slashes
    if sum(len(run) - run.startswith("/") for run in parts[1::2]) > _MOST_SLASHES:
        return None
    ways = [_ways(part) if at % 2 else {part} for at, part in enumerate(parts)]
    found = list(map("".join, product(*ways)))
    return found + ["/" + each[2:].partition("/")[2] for each in found if each.startswith("//")]


def _ways(run: str) -> set[str]:
    """Return how a run of slashes may be read."""
    found = {""}
    for char in run:
        kept = {start + way for start in found for way in {"/", char}}
        found = kept | {start for start in found if start.endswith("/")}
    return found


def route_path(path: str, root_path: str) -> str:
    """Return the path that an ASGI router sees: ``path`` without the mount point."""
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        return path[len(root_path) :]
    return path


def parse_template(template: object) -> tuple[str, ...]:
    """Return the segments of a path template; parameters are :data:`SEGMENT` or :data:`REST`.

    Args:
        template: Such as ``/v1/models/{model_id}``.

    Raises:
        InvalidValueError: The template is malformed, or no path can match it.
    """
    from keyguard.core.http.notations import in_rules_notation

    if not isinstance(template, str):
        raise InvalidValueError(f"a path is a string, not {shown(template)}")
    respelled = in_rules_notation(template)
    if respelled != template:
        why = _PARAMETERS
        with suppress(InvalidValueError):
            parse_template(respelled)
            why += f": write {respelled[:200]!r}"
        raise _no_path(template, why)
    if not template.startswith("/"):
        raise InvalidValueError(
            f"{shown(template)} can't be the path of a rule: it must start with '/'"
        )
    segments: list[str] = []
    names: list[str] = []
    *inner, last = template[1:].split("/")
    for number, text in enumerate([*inner, last]):
        at_end = number == len(inner)
        parameter = re.match(_PARAMETER, text)
        if parameter is not None:
            names.append(parameter[1])
            segments.append(REST if parameter[2] else SEGMENT)
            if parameter[2] and not at_end:
                raise _no_path(template, "{name:path} must stand at its end")
        elif text == "" and at_end:
            segments.append("")
        elif text in ("", ".", ".."):
            raise _no_path(template, "a path with empty or dot segments is never matched")
        elif "{" in text or "}" in text:
            raise _no_path(template, _PARAMETERS)
        elif re.match(_LITERAL, text):
            segments.append(text)
        else:
            raise _no_path(template, "it must be written decoded, and without '*' and a query")
    for name in names:
        if names.count(name) > 1:
            raise _no_path(template, f"it has two parameters named {name!r}")
    return tuple(segments)


def _no_path(template: str, why: str) -> InvalidValueError:
    named = repr(template[:200]) if "/" in template else shown(template)
    return InvalidValueError(f"{named} can't be the path of a rule: {why}")
