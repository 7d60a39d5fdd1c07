"""What `import keyguard` gives, and what it does not bring along."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import keyguard

# What only who manages keys needs.
MANAGEMENT = [
    "keyguard.guard.keys",
    "keyguard.core.management.importing",
    "keyguard.core.management.import_rows",
    "keyguard.core.management",
]
# Imported by those above, by stores, by adapters, and at the first use of a name of the package.
UNUSED_BY_A_BARE_IMPORT = [
    *MANAGEMENT,
    "keyguard.core.keys.audit",
    "keyguard.core.keys.commit",
    "keyguard.core.keys.lists",
    "keyguard.core.access.answers",
    "keyguard.core.access.receipt",
    "keyguard.core.http",
    "keyguard.request",
    "keyguard.settings.sources",
]
NEVER_IMPORTED = [
    "alembic",
    "asyncmy",
    "flask",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pymysql",
    "redis",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "starlette",
    "trio",
    "typer",
    "werkzeug",
]


def test_all_is_sorted_and_complete() -> None:
    for name in keyguard.__all__:  # some are imported at their first use
        assert getattr(keyguard, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = keyguard.nonsense  # type: ignore[attr-defined]
    public = {name for name in vars(keyguard) if not name.startswith("_")} - {"TYPE_CHECKING"}
    submodules = {module.name for module in pkgutil.iter_modules(keyguard.__path__)}

    assert list(keyguard.__all__) == sorted(keyguard.__all__)
    assert set(keyguard.__all__) == public - submodules - {"annotations"}


def test_the_package_lists_its_names_before_their_first_use() -> None:
    code = "import keyguard; print({*keyguard.__all__} <= {*dir(keyguard)})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


def test_importing_keyguard_brings_no_framework_and_no_driver() -> None:
    names = ", ".join(repr(name) for name in NEVER_IMPORTED)
    code = (
        "import sys; before = set(sys.modules);"  # coverage brings some along
        "import keyguard, keyguard.adapters.asgi, keyguard.adapters.wsgi;"
        f"print([n for n in ({names}) if n in set(sys.modules) - before])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_sync_code_imports_no_asyncio_and_async_code_does_when_the_guard_is_built() -> None:
    code = (
        "import sys; before = set(sys.modules);"  # coverage brings some along
        "import keyguard, keyguard.adapters.wsgi;"
        "guard = keyguard.Keyguard('memory://'); guard.authenticate(['Bearer x']); guard.close();"
        "names = {'asyncio', 'concurrent.futures.thread', 'ssl', 'subprocess', 'tomllib'};"
        "print(sorted(names & set(sys.modules) - before));"
        "keyguard.AsyncKeyguard('memory://');"
        "print({'asyncio', 'concurrent.futures.thread'} <= set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n") == ["[]", "True", ""]


def test_management_is_imported_when_keys_are_managed_and_not_before() -> None:
    code = (
        "import sys; from keyguard import AsyncKeyguard, Keyguard;"
        "guard, other = Keyguard('memory://'), AsyncKeyguard('memory://');"
        f"names = set({MANAGEMENT!r});"
        "print(sorted(names & set(sys.modules)));"
        "guard.keys is guard.keys or exit(1);"
        "print(names <= set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n") == ["[]", "True", ""]


def test_importing_keyguard_imports_no_management_no_request_and_no_parser_of_limits() -> None:
    code = (
        "import sys; import keyguard;"
        f"names = {{'limits', *{UNUSED_BY_A_BARE_IMPORT!r}}};"
        "print(sorted(names & set(sys.modules)));"
        "keyguard.Settings();"
        "print('limits' in sys.modules);"
        "keyguard.Limit('a', '1/minute');"
        "print('limits' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n") == ["[]", "False", "True", ""]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_no_request_is_the_first_to_import_anything(interface: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.first_requests", interface],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == {
        "let in": [200, []],
        "without a key": [401, []],
        "with a wrong secret": [401, []],
        "without the scope": [403, []],
        "within the limit": [200, []],
        "over the limit": [429, []],
        "over plain HTTP": [403, []],
    }


@pytest.mark.parametrize(
    ("module", "blocked", "said"),
    [
        ("keyguard.adapters.starlette", "starlette", "pip install 'keyguard[starlette]'"),
        ("keyguard.adapters.fastapi", "fastapi", "pip install 'keyguard[fastapi]'"),
        ("keyguard.adapters.flask", "flask", "pip install 'keyguard[flask]'"),
        ("keyguard.adapters.django", "django", "pip install 'keyguard[django]'"),
        ("keyguard.adapters.rest_framework", "rest_framework", "pip install 'keyguard[drf]'"),
        ("keyguard.stores.sql", "sqlalchemy", "pip install 'keyguard[sql]'"),
        (
            "keyguard.telemetry.prometheus",
            "prometheus_client",
            "pip install 'keyguard[prometheus]'",
        ),
        (
            "keyguard.telemetry.opentelemetry",
            "opentelemetry",
            "pip install 'keyguard[opentelemetry]'",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence_that_names_it(
    module: str, blocked: str, said: str
) -> None:
    code = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "import keyguard, importlib\n"
        f"try: importlib.import_module({module!r})\n"
        "except keyguard.MissingExtraError as missing: print(missing)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said in done.stdout
    assert len(done.stdout.splitlines()) == 1


def _modules() -> list[str]:
    # Alembic runs the first, only a server can import the next two (they are applications), and the
    # last reads the settings of a Django project.
    skipped = (
        "keyguard.stores.sql.migrations",
        "keyguard.asgi",
        "keyguard.wsgi",
        "keyguard.adapters.django._spectacular",
    )
    return [
        module.name
        for module in pkgutil.walk_packages(keyguard.__path__, "keyguard.")
        if not module.name.startswith(skipped)
    ]


@pytest.mark.parametrize("name", _modules())
def test_every_module_names_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)

    assert module.__doc__
    for offered in getattr(module, "__all__", ()):
        assert hasattr(module, offered)
