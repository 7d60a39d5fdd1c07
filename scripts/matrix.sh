#!/bin/sh
# Run tests with every supported Python, and the lowest and newest version of each package.
#
# The adapters' tests run with each Python and both ends. With the oldest Python, all packages are at their
# lowest together, and the tests of stores, limits, usage, freshness and the command line run as well.
#
# Each run has an environment of its own under .matrix/. MATRIX_PYTHONS and MATRIX_ENDS choose some.
set -eu

oldest=3.11
pythons=${MATRIX_PYTHONS:-"3.11 3.12 3.13 3.14"}
ends=${MATRIX_ENDS:-"lowest newest"}
stores="tests/stores tests/limits tests/usage tests/freshness tests/cli"
status=0

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check -qq "$@"
}

# run NAME PYTHON REQUIREMENT-OF-KEYGUARD PINS WARNINGS TESTS
run() {
    name=$1 python=$2 keyguard=$3 pins=$4 warnings=$5 tests=$6
    venv=.matrix/$name
    rm -rf "$venv"
    mkdir -p .matrix
    "$python" -m venv "$venv"
    echo "matrix: $name: ${pins:+$(echo $pins)}"
    # The pip of an old Python knows no dependency groups.
    # shellcheck disable=SC2086  # several requirements, options and tests
    pip install 'pip>=25.1' && pip install -e "$keyguard" --group tests $pins &&
        COVERAGE_FILE=$PWD/.coverage-partial "$venv/bin/python" -m pytest -q -n "${WORKERS:-2}" $warnings $tests ||
        { echo "matrix: $name: FAILED"; return 1; }
}

for number in $pythons; do
    python=python$number
    # A shim without an interpreter does not run.
    if ! "$python" -c "import sys, venv; sys.exit(sys.version_info[:2] != tuple(map(int, '$number'.split('.'))))" 2>/dev/null; then
        echo "matrix: Python $number: skipped: it is not installed"
        continue
    fi
    # Since 3.13, sqlite3 warns of connections that are left to the garbage collector, such as those
    # of a page's guard once the page has run.
    case $number in 3.1[12]) warnings='' ;; *) warnings='-W ignore::pytest.PytestUnraisableExceptionWarning' ;; esac
    for end in $ends; do
        tests="tests/adapters tests/recipes"
        if [ "$end" = newest ]; then
            run "$number-newest" "$python" '.[all]' '' "$warnings" "$tests" || status=1
            continue
        fi
        # Old packages use features that newer libraries beneath them have deprecated, and Starlette 0.40's
        # client for tests leaves streams open.
        old="$warnings -W ignore::DeprecationWarning -W ignore:Unclosed:ResourceWarning"
        if [ "$number" = "$oldest" ]; then
            if run "$number-lowest" "$python" '.[all]' '-r requirements/floors.txt' "$old" "$tests $stores"; then
                "$python" scripts/floors.py page
            else
                status=1
            fi
        else # old drivers have no binaries for new Pythons
            pins=$("$python" scripts/floors.py pins starlette flask fastapi django drf)
            run "$number-lowest" "$python" '.[all]' "$pins" "$old" "$tests" || status=1
        fi
    done
done
exit $status
