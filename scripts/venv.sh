#!/bin/sh
# Make or refresh a virtual environment: venv.sh PYTHON DIRECTORY REQUIREMENTS
#
# The directory holds a stamp of what it was made from: the Python, the requirements, its own path.
# With an equal stamp there is nothing to do. pyproject.toml has a stamp of its own: when only that
# changed, keyguard is installed again and everything else stays. A failure removes the directory.
set -eu

python=$1
venv=$2
requirements=$3

say() {
    echo "keyguard: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    say "'$python' was not found; keyguard needs Python 3.11 or newer: apt-get install python3 python3-venv"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) ||
    say "'$python' does not run; keyguard needs Python 3.11 or newer: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    say "'$python' is Python $version, but keyguard needs 3.11 or newer: install one and name it with PYTHON=python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    say "'$python' has no venv module (or no ensurepip, which venv needs): apt-get install python3-venv"

stamp="$("$python" -c 'import sys; print(sys.base_prefix, sys.version.split()[0])') $(cksum <"$requirements") $PWD/$venv"
project=$(cksum <pyproject.toml)

same() { # FILE CONTENT
    [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check -qq "$@"
}

if ! same "$venv/.made-from" "$stamp" || ! [ -x "$venv/bin/python" ]; then
    trap 'rm -rf "$venv"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "making $venv with Python $version from $requirements"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pip install -r "$requirements"
    pip install --no-deps --no-build-isolation --editable .
    echo "$project" >"$venv/.installed-from"
    echo "$stamp" >"$venv/.made-from"
    trap - EXIT INT TERM
elif ! same "$venv/.installed-from" "$project"; then
    pip install --no-deps --no-build-isolation --editable .
    echo "$project" >"$venv/.installed-from"
fi
