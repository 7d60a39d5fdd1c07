"""How long a process takes to import keyguard, beside its dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from time import perf_counter

from benchmarks.report import Section, Verdict, table
from benchmarks.timing import Series

__all__ = ["ROUNDS", "measure"]

ROUNDS = 40
MOST_IMPORT_MILLISECONDS = 45


def measure() -> Section:
    """Compare processes that import keyguard's dependencies with processes that import it too."""
    base, whole = "import argon2, limits", "import argon2, limits, keyguard"
    found: dict[str, list[float]] = {base: [], whole: []}
    with tempfile.TemporaryDirectory() as folder:
        # Everything is compiled beforehand, as in an installation. Else, where
        # PYTHONDONTWRITEBYTECODE is set, each process would compile keyguard, not its dependencies.
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        for code in found:
            _run(code, environ)  # compiles
        for number in range(ROUNDS):
            for code in sorted(found, reverse=bool(number % 2)):
                found[code].append(_run(code, environ) * 1000)
    difference = Series(found[whole]) - Series(found[base])
    rows = [[f"`python -c '{code}'`", Series(found[code]).spell(1)] for code in found]
    rows.append(["difference", difference.spell(1)])
    said = Verdict(
        f"importing keyguard: at most {MOST_IMPORT_MILLISECONDS} ms beside its dependencies",
        difference.median,
        MOST_IMPORT_MILLISECONDS,
        f"{difference.median:.1f} ms",
        before="54.7",
    )
    return Section(table(["import", "ms per process"], rows), [said])


def _run(code: str, environ: dict[str, str]) -> float:
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)
    return perf_counter() - begin
