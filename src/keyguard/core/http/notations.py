"""Translates frameworks' notations of paths into the notation of rules.

A rule in another notation would match no request and guard nothing, so it is refused.
"""

from __future__ import annotations

import re

_NAME = r"[A-Za-z_][\w-]*"
_FOREIGN = re.compile(
    rf"""
      \(\?P?<(?P<group>\w+)>(?P<pattern>(?:[^()]|\([^()]*\))*)\)   # a regex: (?P<id>.+)
    | <(?:(?P<converter>[^<>]*):)?(?P<angle>{_NAME})>              # Flask, Django: <int:id>
    | (?<=/):(?P<colon>{_NAME})(?:\([^()]*\))?(?P<many>[*+]?)\??   # Express, Rails: :id
    | (?<=/)\[+(?P<dots>\.{{3}})?(?P<square>{_NAME})\]+(?=/|\Z)    # Next.js: [id]
    | (?<=/)(?P<stars>\*+)(?P<star>\w*)                            # *, **, *rest
    | \{{(?P<spread>\**)(?P<curly>{_NAME})(?P<type>:[^{{}}]*|\.{{3}})?\}}   # {{id:int}}
    | \(\?[a-zA-Z]+\)                                              # (?i)
    | (?P<regex>
        (?<=/)\((?:[^()]|\([^()]*\))*\)(?=/|\Z|[$*+?])             # (id)
      | \((?=[^()]*[*+?\\\[|])[^()]*\)[*+?]*                       # (.+)
      | \[[^\[\]]*\](?:[*+?]+|\{{[\d,]*\}})?                       # [^/]+
      | (?:\\[dswDSW]|\.(?=[*+]))(?:[*+?]+|\{{[\d,]*\}})?          # \d+, .+
      )
    """,
    re.VERBOSE,
)
_ANCHORS = re.compile(r"\A\^|(?:/\?)?(?:\$|\\[Zz])\Z|/\?\Z")
_ANY_REST = re.compile(r"\.[*+]")


def in_rules_notation(template: str) -> str:
    """Return a path in the notation of rules. A path that already has it is not changed.

    A part that can't be translated stays as it is.

    Args:
        template: Such as ``/v1/models/<int:model_id>``.
    """
    names: list[str] = []
    found = _FOREIGN.sub(lambda part: _parameter(part, names), template)
    found = _ANCHORS.sub("", found)
    return found if found.startswith("/") or found == template else f"/{found}"


def _parameter(part: re.Match[str], names: list[str]) -> str:
    written = part.groupdict()
    if part["curly"] and not part["spread"] and part["type"] in (None, ":path"):
        return part[0]  # already in the notation of rules
    given = ("group", "angle", "colon", "square", "star", "curly")
    name = next((written[kind] for kind in given if written[kind]), None)
    if name is None and part["regex"] is None and part["stars"] is None:
        return ""  # the flags of a regular expression
    name = re.sub(r"\W", "_", name or "name")
    if name in names:
        name = f"{name}{len(names) + 1}"
    names.append(name)
    takes_rest = (
        part["type"] == "..."
        or (part["converter"] or "").startswith("path")
        or bool(part["many"] or part["dots"] or part["stars"] or part["spread"])
        or _ANY_REST.search(part["pattern"] or part["regex"] or "") is not None
    )
    at_end = re.fullmatch(r"(?:/?\??)(?:\$|\\[Zz])?", part.string[part.end() :]) is not None
    return f"{{{name}:path}}" if takes_rest and at_end else f"{{{name}}}"
