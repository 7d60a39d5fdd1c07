"""Import what an extra is for, and be told of every other: a program for `make dist`.

Its argument is the extra that is installed, or nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from keyguard import ConfigurationError, Keyguard, StoreError
from keyguard.exceptions import MissingExtraError


def _opens(url: str) -> Callable[[], object]:
    def use() -> None:
        try:
            Keyguard(url).close()
        except (ConfigurationError, StoreError) as problem:
            if isinstance(problem, MissingExtraError):
                raise

    return use


def _imports(module: str) -> Callable[[], object]:
    return lambda: import_module(module)


def _runs() -> None:
    from keyguard.cli import load_program

    load_program("keyguard")


# For each extra: a package that it brings, and what needs it.
USES: dict[str, tuple[str, Callable[[], object]]] = {
    "sql": ("sqlalchemy", _opens("sqlite:///keys.db")),
    "postgresql": ("psycopg", _opens("postgresql://nobody@127.0.0.1:1/none")),
    "mysql": ("pymysql", _opens("mysql://nobody@127.0.0.1:1/none")),
    "redis": ("redis", _opens("redis://127.0.0.1:1/0")),
    "starlette": ("starlette", _imports("keyguard.adapters.starlette")),
    "fastapi": ("fastapi", _imports("keyguard.adapters.fastapi")),
    "flask": ("flask", _imports("keyguard.adapters.flask")),
    "django": ("django", _imports("keyguard.adapters.django")),
    "drf": ("rest_framework", _imports("rest_framework")),
    "bcrypt": ("bcrypt", _imports("bcrypt")),
    "cli": ("typer", _runs),
    "prometheus": ("prometheus_client", _imports("keyguard.telemetry.prometheus")),
    "opentelemetry": ("opentelemetry", _imports("keyguard.telemetry.opentelemetry")),
    "console": ("werkzeug", _imports("keyguard.admin")),
}


def main(installed: str) -> None:
    """Check each extra; the exit code tells of the first that is wrong."""
    if installed not in {"", "all", *USES}:
        sys.exit(f"scripts/extras.py knows nothing of the extra {installed!r}; add what it is for")
    for extra, (package, use) in USES.items():
        if find_spec(package) is not None:
            use()
        elif installed in {extra, "all"}:
            sys.exit(f"keyguard[{installed}] did not bring {package}")
        else:
            _check_message(extra, package, use)


def _check_message(extra: str, package: str, use: Callable[[], object]) -> None:
    try:
        use()
    except MissingExtraError as missing:
        if "pip install 'keyguard[" not in str(missing):
            sys.exit(f"without {package}, the message is: {missing}")
    except ModuleNotFoundError as missing:
        # A framework's adapter is imported where the framework is; the framework names itself.
        if missing.name is None or missing.name.split(".")[0] != package:
            sys.exit(f"without {package}, the extra {extra} fails with: {missing!r}")
    else:
        sys.exit(f"without {package}, what the extra {extra} is for works all the same")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
