#!/bin/sh
# Build wheel and source archive, check them, and use the wheel as a stranger would: dist.sh PYTHON [short]
#
# PYTHON has the programs of the group `dev`. Each extra is installed alone, in an environment of its own. With
# "short", the wheel alone is installed, beside the dependencies that PYTHON has: no index is asked.
set -eu

python=$1
how=${2-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT

rm -rf dist
"$python" -m build --no-isolation --outdir dist . >/dev/null
"$python" -m twine check --strict dist/*
"$(dirname "$python")/check-wheel-contents" dist/*.whl
wheel=$(echo "$PWD"/dist/*.whl)

installed() { # NAME REQUIREMENT...
    name=$1
    shift
    "$python" -m venv "$scratch/$name"
    "$scratch/$name/bin/python" -m pip --disable-pip-version-check -qq install "$@"
}

each_extra() {
    installed archive "$(echo "$PWD"/dist/*.tar.gz)"
    for extra in '' $("$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"])'); do
        echo "dist: ${extra:-no extra}"
        installed "with-$extra" "$wheel${extra:+[$extra]}"
        # In another folder, so that nothing but the wheel is found.
        (cd "$scratch" && "with-$extra/bin/python" -I - "$extra" <"$OLDPWD/scripts/extras.py")
        [ "$extra" = all ] || rm -rf "$scratch/with-$extra"
    done
}

if [ "$how" = short ]; then
    installed with-all --no-index --no-deps "$wheel"
    # A path in a .pth file brings the packages there, and not what their own .pth files bring: the
    # working copy of keyguard.
    beside=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$beside" >"$("$scratch/with-all/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
else
    each_extra
fi

echo "dist: the README's examples"
[ "$how" = short ] || "$scratch/with-all/bin/python" -m pip --disable-pip-version-check -qq install httpx
cp README.md "$scratch"
(cd "$scratch" && with-all/bin/python -I - <<'EOF')
import re
from pathlib import Path

from starlette.testclient import TestClient

import keyguard

assert "site-packages" in keyguard.__file__, keyguard.__file__
issue, starlette, flask = re.findall(r"^```python\n(.*?)^```$", Path("README.md").read_text(), re.M | re.S)[:3]
printed = []
exec(issue, {"__name__": "readme", "print": printed.append})
headers = {"Authorization": f"Bearer {printed[-1]}"}
for example in (starlette, flask):
    names = {"__name__": "readme"}
    exec(example, names)
    client = TestClient(names["app"]) if example is starlette else names["app"].test_client()
    statuses = [client.post("/v1/inference", headers=sent).status_code for sent in (headers, {})]
    assert statuses == [200, 401], statuses
EOF
echo "dist: done"
