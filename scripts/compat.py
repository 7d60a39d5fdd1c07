"""Run the own tests of frameworks and applications, bare and behind keyguard.

The outcomes must be the same. The tests come from the source distributions of the installed
versions, or from a clone where these leave some out. Around a framework's applications keyguard is
a transparent layer. An application is embedded as the documentation says: by a patch of it in
``compat_apps/``, or unedited, by a file of settings. ``make compat`` runs the suites that need no
clone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".compat"
PATCHES = ROOT / "scripts" / "compat_apps"


class Suite(NamedTuple):
    """A distribution, the folder in its source that holds the tests, and arguments for pytest.

    Where the source distribution lacks some of its tests, ``tag`` names a tag of ``repository``.
    """

    distribution: str
    folder: str = "."
    arguments: tuple[str, ...] = ()
    repository: str = ""
    tag: str = ""

    @property
    def version(self) -> str:
        """The version that is tested: a clone holds its own."""
        return self.tag or version(self.distribution)


SUITES = {
    "starlette": Suite("starlette"),
    "flask": Suite("flask"),
    # The others start servers of their own, in processes where nothing is wrapped.
    "werkzeug": Suite("werkzeug", arguments=("-m", "not dev_server")),
    "flaskr": Suite("flask", "examples/tutorial"),
    # It configures no pytest, which would take keyguard's own configuration.
    "httpbin": Suite("httpbin", arguments=("-c", "pyproject.toml")),
    # What is left out starts servers of its own, or checks how the code is formatted.
    "datasette": Suite(
        "datasette",
        arguments=("--ignore=tests/test_cli_serve_server.py", "--ignore=tests/test_black.py"),
        repository="https://github.com/simonw/datasette",
        tag="0.65.2",
    ),
    "pypiserver": Suite(
        "pypiserver",
        arguments=("--ignore=tests/test_server.py",),
        repository="https://github.com/pypiserver/pypiserver",
        tag="v2.4.1",
    ),
}
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


def fetch(suite: Suite) -> Path:
    """Return the folder of a suite's source: a clone, or a distribution, downloaded once."""
    distribution = suite.distribution
    name = f"{distribution}-{suite.version}"
    folder = CACHE / name
    if suite.tag and not folder.exists():
        raise SystemExit(
            f"compat: the tests of {distribution} need a clone: "
            f"git clone --branch {suite.tag} {suite.repository} {folder}"
        )
    if not folder.exists():
        say(f"fetching {name}")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", distribution, "--dest", CACHE,
             f"{distribution}=={suite.version}"],
            check=True,
        )  # fmt: skip
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


def embedded(suite: str, folder: Path) -> Path:
    """Return a copy of an application's folder with its patch; the folder if it has none."""
    patch = PATCHES / f"{suite}.patch"
    if not patch.exists():
        return folder
    copy = CACHE / f"{suite}-embedded"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    # Without the ceiling, git would look for the files in keyguard's own repository.
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(CACHE)}
    subprocess.run(["git", "apply", patch], cwd=copy, env=environ, check=True)  # noqa: S607
    return copy


def outcomes(suite: str, folder: Path, *, guarded: bool) -> dict[str, str]:
    """Run a suite; return what became of each test."""
    found = CACHE / f"{suite}-{'guarded' if guarded else 'bare'}.json"
    found.unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if name != "COMPAT_GUARDED"}
    environ |= {
        "PYTHONPATH": str(ROOT / "scripts"),
        "COMPAT_SUITE": suite,
        "COMPAT_OUTCOMES": str(found),
        "KEYGUARD_URL": "memory://",
    }
    if guarded:
        environ["COMPAT_GUARDED"] = "1"
    with (CACHE / f"{found.stem}.log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "compat_plugin", "-p", "no:cacheprovider",
             "--timeout", "60", "--continue-on-collection-errors", "-q", "tests",
             *SUITES[suite].arguments],
            cwd=folder, env=environ, stdout=log, stderr=log, check=False,
        )  # fmt: skip
    read: dict[str, str] = json.loads(found.read_text()) if found.exists() else {}
    if "passed" not in read.values():
        raise SystemExit(f"compat: the tests of {suite} did not run: see {log.name}")
    return read


def differences(suite: str) -> list[str]:
    """Return the tests that end otherwise behind keyguard than bare, and are not known to."""
    folder = fetch(SUITES[suite]) / SUITES[suite].folder
    bare = outcomes(suite, folder, guarded=False)
    guarded = outcomes(suite, embedded(suite, folder), guarded=True)
    expected = EXPECTED.get(suite, {})
    counts = {
        outcome: list(bare.values()).count(outcome) for outcome in ("passed", "failed", "skipped")
    }
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    differing = {
        test: f"{bare.get(test, 'absent')} bare, {guarded.get(test, 'absent')} behind keyguard"
        for test in sorted(bare.keys() | guarded.keys())
        if bare.get(test) != guarded.get(test)
    }
    ends = f"{len(differing)} end otherwise behind keyguard"
    say(f"{suite} {SUITES[suite].version}: {said}; {ends}")
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
    """Run the suites that were named, or all. An environment may not hold what all of them need."""
    CACHE.mkdir(exist_ok=True)
    wrong = [line for suite in sys.argv[1:] or SUITES for line in differences(suite)]
    for line in wrong:
        say(f"  {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
