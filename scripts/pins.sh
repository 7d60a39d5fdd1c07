#!/bin/sh
# Resolve pyproject.toml's ranges to the newest releases and write them down: pins.sh PYTHON
#
# The pins are made with the oldest Python in wide use that keyguard supports, so that one list serves
# all: some releases need 3.11.5, and Debian 12 has 3.11.2.
set -eu

python=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:3] <= (3, 11, 2))' || {
    echo "keyguard: pins are made with Python 3.11.2 (Debian 12's), so that they work on every later one; name it with PYTHON=/usr/bin/python3" >&2
    exit 1
}
backend=$("$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"])')

pin() { # FILE WHAT-FOR REQUIREMENT-OR-OPTION...
    file=$1
    purpose=$2
    shift 2
    echo "resolving $file"
    "$python" -m venv "$scratch/venv"
    # Debian 12's pip knows no dependency groups.
    "$scratch/venv/bin/python" -m pip --disable-pip-version-check -qq install 'pip>=25.1'
    # shellcheck disable=SC2086  # the build backend may be several requirements
    "$scratch/venv/bin/python" -m pip --disable-pip-version-check -qq install $backend "$@"
    {
        echo "# $purpose"
        echo "# Every version that \`make pins\` resolved from pyproject.toml; change it there, not here."
        "$scratch/venv/bin/python" -m pip --disable-pip-version-check freeze --exclude keyguard |
            LC_ALL=C sort -f
    } >"$scratch/pins"
    cp "$scratch/pins" "$file"
    rm -rf "$scratch/venv"
}

pin requirements/demo.txt "What \`make demo\` installs: both examples and the command line on SQLite." \
    ".[cli,console,flask,prometheus,starlette]" flask-cors uvicorn
pin requirements/dev.txt "What \`make test\`, \`make check\`, \`make bench\` and \`make docs\` install." \
    ".[all]" --group dev
# shellcheck disable=SC2046  # one requirement for each package
pin requirements/floors.txt "What \`make floors\` installs: the lowest of every package, and what the tests need." \
    ".[all]" --group tests $("$python" scripts/floors.py pins)
pin requirements/servers.txt "What \`make servers\` installs: every server, and what the tests need." \
    ".[all]" --group servers
