#!/bin/sh
# Run the adapters' tests with every supported Python, and the lowest and newest version of each framework.
#
# Each run has an environment of its own under .matrix/. MATRIX_PYTHONS and MATRIX_ENDS choose some.
set -eu

pythons=${MATRIX_PYTHONS:-"3.11 3.12 3.13"}
ends=${MATRIX_ENDS:-"lowest newest"}
status=0

# The lowest versions that the extras of these names accept, as pins.
lowest() { # PYTHON
    "$1" -c '
import re, tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
for extra in ("starlette", "flask", "fastapi", "django", "drf"):
    for requirement in extras.get(extra, ()):
        if not requirement.startswith("keyguard["):
            print(re.sub(r"\[.*?\]", "", requirement.split(";")[0]).replace(">=", "~=", 1)
                  if requirement.count(".") > 1 else requirement.replace(">=", "==", 1) + ".*")'
}

for number in $pythons; do
    python=python$number
    # A shim without an interpreter does not run.
    if ! "$python" -c "import sys, venv; sys.exit(sys.version_info[:2] != tuple(map(int, '$number'.split('.'))))" 2>/dev/null; then
        echo "matrix: Python $number: skipped: it is not installed"
        continue
    fi
    for end in $ends; do
        venv=.matrix/$number-$end
        rm -rf "$venv"
        mkdir -p .matrix
        "$python" -m venv "$venv"
        # Old frameworks use features that newer libraries beneath them have deprecated.
        if [ "$end" = lowest ]; then
            pins=$(lowest "$python") warnings="-W ignore::DeprecationWarning"
        else
            pins='' warnings=''
        fi
        # Since 3.13, sqlite3 warns of connections that are left to the garbage collector, such as those
        # of a page's guard once the page has run.
        [ "$number" = 3.13 ] && warnings="$warnings -W ignore::pytest.PytestUnraisableExceptionWarning"
        echo "matrix: Python $number, $end: ${pins:+$(echo $pins)}"
        # shellcheck disable=SC2086  # several requirements
        "$venv/bin/python" -m pip --disable-pip-version-check -qq install -e '.[dev]' $pins &&
            COVERAGE_FILE=$PWD/.coverage-partial "$venv/bin/python" -m pytest -q -n 2 $warnings tests/adapters tests/recipes ||
            { echo "matrix: Python $number, $end: FAILED"; status=1; }
    done
done
exit $status
