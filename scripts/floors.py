"""The lowest version of each dependency that keyguard accepts, as pyproject.toml gives it.

``scripts/floors.py pins [EXTRA...]`` prints them as requirements, by default those of all extras.
``scripts/floors.py page`` writes the table of docs/compatibility.md. `make pins` resolves the first
into requirements/floors.txt. `make matrix` does the second once the tests pass.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
_BEGIN, _END = "% floors begin\n", "% floors end\n"
_PIN = re.compile(r"^([\w.-]+)==(\S+)$", re.MULTILINE)
_REQUIREMENT = re.compile(r"([\w.-]+)(\[[\w,]+\])?>=([\w.]+)")
_UNTRIED = "older ones were not tried"


class Floor(NamedTuple):
    """The lowest version of a dependency.

    Args:
        name: The dependency.
        parts: Its extras that keyguard needs, in brackets, or nothing.
        version: The version.
        reason: What keyguard would lack with an older one.
    """

    name: str
    parts: str
    version: str
    reason: str

    @property
    def pin(self) -> str:
        """The requirement for that version and no other."""
        return f"{self.name}{self.parts}=={self.version}"


def floors(*extras: str) -> list[Floor]:
    """Return the lowest versions in the order of pyproject.toml.

    Args:
        extras: The extras to look at; by default all, and what is always installed.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    groups = project["optional-dependencies"]
    needed = [] if extras else [*project["dependencies"]]
    needed += [requirement for extra in extras or groups for requirement in groups[extra]]
    found = []
    for requirement in needed:
        match = _REQUIREMENT.match(requirement)
        if match is not None:
            reason = re.search(re.escape(f'"{requirement}"') + r"\]?,? # because (.+)", text)
            name, parts, version = match.groups(default="")
            found.append(Floor(name, parts, version, reason[1] if reason else _UNTRIED))
    return found


def pinned(file: str) -> dict[str, str]:
    """Return the version of each package in a file of requirements/, by its normalized name."""
    text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
    return {_plain(name): version for name, version in _PIN.findall(text)}


def table() -> str:
    """Return the table of the documentation."""
    newest = pinned("dev.txt")
    lines = ["| dependency | lowest | newest tested | why not lower |", "|---|---|---|---|"]
    lines += [
        f"| {floor.name} | {floor.version} | {newest[_plain(floor.name)]} | {floor.reason} |"
        for floor in floors()
    ]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with its table renewed."""
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if sys.argv[1:2] == ["pins"]:
        print("\n".join(floor.pin for floor in floors(*sys.argv[2:])))
    elif sys.argv[1:] == ["page"]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.exit(__doc__)
