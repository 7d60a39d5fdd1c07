"""How results are reported: verdicts on targets, tables, and the machine that was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

_PACKAGES = (
    "keyguard",
    "argon2-cffi",
    "limits",
    "SQLAlchemy",
    "redis",
    "starlette",
    "fastapi",
    "Flask",
    "slowapi",
    "Flask-Limiter",
    "uvicorn",
    "uvloop",
)


@dataclass(frozen=True)
class Verdict:
    """One target, and what was found.

    Args:
        target: What is compared with what.
        found: The number that was found.
        most: The largest number that meets the target.
        detail: The number with its spread, for people.
        before: What was found before the redesign. A target that has one stands in the table of
            targets.
    """

    target: str
    found: float
    most: float
    detail: str
    before: str = ""

    def __str__(self) -> str:
        return f"- **{_met(self.found, self.most)}**: {self.target}: {self.detail}"


@dataclass(frozen=True)
class Section:
    """What one part of the benchmark found: text, and verdicts below it."""

    text: str
    verdicts: Sequence[Verdict] = ()

    def __str__(self) -> str:
        if not self.verdicts:
            return self.text
        return f"{self.text}\n\n" + "\n".join(map(str, self.verdicts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    whole = [[*row, *([""] * (len(head) - len(row)))] for row in rows]
    lines = [head, ["---"] * len(head), *whole]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets(runs: Iterable[Sequence[Verdict]]) -> str:
    """Return the table of targets, with the median of several runs.

    Args:
        runs: The verdicts of each run.
    """
    found: dict[str, list[Verdict]] = {}
    for verdicts in runs:
        for verdict in verdicts:
            if verdict.before:
                found.setdefault(verdict.target, []).append(verdict)
    rows = []
    for target, verdicts in found.items():
        now, most = median(verdict.found for verdict in verdicts), verdicts[0].most
        spread = ", ".join(f"{verdict.found:.2f}" for verdict in verdicts)
        rows.append(
            [target, verdicts[0].before, f"{now:.2f}", spread, f"**{_met(now, most)}**"],
        )
    return table(["target", "before", "now (median of the runs)", "runs", ""], rows)


def machine() -> str:
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {model}, {os.cpu_count()} cores; {platform.system()}; "
        f"{python}; {versions}"
    )


def _met(found: float, most: float) -> str:
    return "met" if found <= most else "MISSED"
