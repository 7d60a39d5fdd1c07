"""Run the frameworks' own test suites, bare and behind keyguard: the outcomes must be the same.

The suites come from the source distributions of the installed versions. ``make compat`` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".compat"
SUITES = ("starlette", "flask", "werkzeug")

# The others start servers of their own, in processes where nothing is wrapped.
ONLY = {"werkzeug": ("-m", "not dev_server")}
# Tests that differ on purpose, by suite, each with the reason.
_AMBIGUOUS = "a path that may be read in several ways is never public"
EXPECTED: dict[str, dict[str, str]] = {
    "starlette": {
        f"tests/{test}[{backend}]": why
        for backend in ("asyncio", "trio")
        for test, why in (
            ("test_requests.py::test_request_raw_path", _AMBIGUOUS),
            ("test_staticfiles.py::test_staticfiles_null_byte_in_path", _AMBIGUOUS),
        )
    },
    "werkzeug": {
        "tests/middleware/test_lint.py::test_lint_middleware_check_environ"
        "[PATH_INFO-test-'PATH_INFO' does not start with a slash:]": _AMBIGUOUS,
        "tests/test_test.py::test_raw_request_uri": _AMBIGUOUS,
        # Werkzeug's client sends a path without a slash.
        "tests/test_test.py::test_follow_redirect_non_root_base_url": _AMBIGUOUS,
        "tests/test_test.py::test_full_url_requests_with_args": _AMBIGUOUS,
        **{
            f"tests/test_utils.py::test_append_slash_redirect[{autocorrect}-foo-"
            "http://example.org/app-http://example.org/app/foo/]": _AMBIGUOUS
            for autocorrect in (False, True)
        },
    },
}


def fetch(suite: str) -> Path:
    """Return the folder of a suite's source distribution, downloaded once."""
    name = f"{suite}-{version(suite)}"
    folder = CACHE / name
    if not folder.exists():
        say(f"fetching {name}")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", suite, "--dest", CACHE,
             f"{suite}=={version(suite)}"],
            check=True,
        )  # fmt: skip
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


def outcomes(suite: str, folder: Path, *, guarded: bool) -> dict[str, str]:
    """Run a suite; return what became of each test."""
    found = CACHE / f"{suite}-{'guarded' if guarded else 'bare'}.json"
    found.unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if name != "COMPAT_GUARDED"}
    environ |= {
        "PYTHONPATH": str(ROOT / "scripts"),
        "COMPAT_SUITE": suite,
        "COMPAT_OUTCOMES": str(found),
    }
    if guarded:
        environ["COMPAT_GUARDED"] = "1"
    with (CACHE / f"{found.stem}.log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "compat_plugin", "-p", "no:cacheprovider",
             "--timeout", "60", "--continue-on-collection-errors", "-q", "tests",
             *ONLY.get(suite, ())],
            cwd=folder, env=environ, stdout=log, stderr=log, check=False,
        )  # fmt: skip
    read: dict[str, str] = json.loads(found.read_text()) if found.exists() else {}
    if "passed" not in read.values():
        raise SystemExit(f"compat: the tests of {suite} did not run: see {log.name}")
    return read


def differences(suite: str) -> list[str]:
    """Return the tests that end otherwise behind keyguard than bare, and are not known to."""
    folder = fetch(suite)
    bare = outcomes(suite, folder, guarded=False)
    guarded = outcomes(suite, folder, guarded=True)
    expected = EXPECTED.get(suite, {})
    counts = {one: list(bare.values()).count(one) for one in ("passed", "failed", "skipped")}
    said = ", ".join(f"{count} {one}" for one, count in counts.items())
    differing = {
        test: f"{bare.get(test, 'absent')} bare, {guarded.get(test, 'absent')} behind keyguard"
        for test in sorted(bare.keys() | guarded.keys())
        if bare.get(test) != guarded.get(test)
    }
    say(f"{suite} {version(suite)}: {said}; {len(differing)} end otherwise behind keyguard")
    wrong = [f"{test}: {what}" for test, what in differing.items() if test not in expected]
    for test, why in expected.items():
        if test in differing:
            say(f"  known: {test}: {why}")
        else:
            wrong.append(f"{test}: ends alike by now; take it off the list of known ones")
    return wrong


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the suites that were named, or all."""
    CACHE.mkdir(exist_ok=True)
    wrong = [line for suite in sys.argv[1:] or SUITES for line in differences(suite)]
    for line in wrong:
        say(f"  {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
