"""``keyguard routes``: every route with what guards it, and an exit code for CI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program, Run, Terminal
from tests.route_report import apps

ROOT = Path(__file__).parents[2]
APPS = "tests.route_report.apps"


def test_the_routes_are_printed_with_what_guards_them(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:starlette_app")

    assert done.status == 0
    assert done.stdout == (
        "Methods    Path                   Guarded by\n"
        "GET        /healthz               public\n"
        "POST       /v1/inference          scopes inference:write\n"
        "                                  limit inference 60/minute per key\n"
        "GET        /v1/models/{model_id}  any of a:b, c:d\n"
        "                                  limit v1-models-model 100/minute per key\n"
        "PUT        /v1/models/{model_id}  key\n"
        "DELETE     /reports/{id:int}      scopes admin\n"
        "GET        /reports/{id:int}      key\n"
        "WebSocket  /ws                    key\n"
    )


def test_a_route_that_is_public_without_being_named_so_fails_and_is_explained(
    keyguard: Program,
) -> None:
    done = keyguard("routes", f"{APPS}:wide")

    assert done.status == 1
    assert "POST     /internal/reset  public, not named so\n" in done.stdout
    assert done.stdout.endswith(
        "\nproblem  public only because the wider rule '/internal/{rest:path}' is (name it in a "
        "public rule of its own if it is meant to be public, else in one that is not public): "
        "POST /internal/reset\n"
    )


def test_another_login_is_named(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:beside_a_login")

    assert done.status == 0
    assert (
        "GET      /app/page       scopes app\n                         or session\n" in done.stdout
    )


def test_a_wide_public_rule_may_be_accepted(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:wide", "--accept", "/internal/{rest:path}")

    assert done.status == 0
    assert "POST     /internal/reset  public\n" in done.stdout
    mistyped = keyguard("routes", f"{APPS}:wide", "--accept", "/internal/{path:path}")
    assert mistyped.status == 2
    assert "no public rule has that path" in mistyped.sentence


def test_a_part_of_a_route_has_its_own_line(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:by_tenant")

    assert done.status == 1
    assert (
        "GET      /{tenant}/reset       key\n"
        "GET      /{tenant}/reset       public, not named so\n"
        "           at /internal/reset\n"
    ) in done.stdout


def test_a_wrapper_around_several_applications_is_not_told(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:split")

    assert done.status == 1
    assert "any      /x/{path:path}  unknown\n" in done.stdout
    assert "\nproblem  unknown: keyguard can't read what serves it" in done.stdout
    assert keyguard("routes", f"{APPS}:split", "--json").json["routes"][0]["public"] is None


def test_an_application_of_which_nothing_can_be_read_is_refused(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:opaque")

    assert done.status == 2
    assert done.sentence.startswith("the application is a function, whose routes can't be read")


def test_an_application_without_a_guard_is_told_in_one_sentence(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:unguarded")

    assert done.status == 1
    assert done.stdout.count("problem  ") == 1
    assert "no keyguard middleware stands before it" in done.stdout


def test_json_has_every_route(keyguard: Program) -> None:
    for arguments in (("routes", f"{APPS}:wide", "--json"), ("--json", "routes", f"{APPS}:wide")):
        done = keyguard(*arguments)
        assert done.status == 1
        reset, asking = done.json["routes"]
        assert done.json["ok"] is False
        assert reset["public"] is True
        assert "wider rule" in reset["problem"]
        assert asking == {
            "path": "/internal/ok",
            "part": None,
            "methods": ["GET"],
            "websocket": False,
            "public": False,
            "also": None,
            "by_itself": False,
            "scopes": ["inference:write"],
            "any_of": [],
            "limits": ["inference 60/minute per key"],
            "problem": None,
        }


def test_a_factory_is_called(keyguard: Program) -> None:
    done = keyguard("routes", f"{APPS}:flask_app()")

    assert done.status == 0
    assert "/outer/inner/<name>" in done.stdout


@pytest.mark.campaign("broken", "leaves", "mistyped", "nowhere", "service:fails")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("service", "'service' names no application: write module:attribute"),
        ("service:", "'service:' names no application"),
        ("service:a-b", "'service:a-b' names no application"),
        (
            "nowhere:app",
            "the module 'nowhere' can't be imported: No module named 'nowhere'; this folder is '",
        ),
        ("service:nothing", "the module 'service' has no 'nothing': name the attribute that"),
        ("service:thing", "the application is a int, whose routes can't be read"),
        (
            "service:fails",
            "the application is a function, whose routes can't be read: only those of Starlette, "
            "FastAPI, Flask and Django can; if it wraps one of these, name that one; if it makes "
            "one of these, write () after its name",
        ),
        (
            "service:fails()",
            "the application that fails() of 'service' makes can't be imported: Val",
        ),
        ("service:thing()", "'thing' of 'service' is not a function: leave out the ()"),
        ("broken:app", "the module 'broken' can't be imported: ZeroDivisionError at broken.py:1"),
        ("leaves:app", "the module 'leaves' can't be imported: SystemExit at leaves.py:2"),
        ("mistyped:app", "the module 'mistyped' can't be imported: SyntaxError at mistyped.py:2"),
        ("imports:app", "the module 'imports' can't be imported: SyntaxError at mistyped.py:2"),
        ("compiles:app", "the module 'compiles' can't be imported: SyntaxError at compiles.py:1"),
    ],
)
def test_a_name_without_an_application_is_one_clear_sentence(
    name: str, sentence: str, process: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text("thing = 3\ndef fails(): raise ValueError('hunter2')\n")
    (tmp_path / "broken.py").write_text("app = 1 / 0\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "mistyped.py").write_text("app = 1\npassword = 'hunter2' x\n")
    (tmp_path / "imports.py").write_text("import mistyped\n")
    (tmp_path / "compiles.py").write_text("app = compile('hunter2 x', '<form>', 'exec')\n")

    done = process("routes", name)

    assert done.status == 2
    assert done.sentence.startswith(sentence)
    assert "hunter2" not in done.sentence


def test_the_output_of_an_application_goes_to_stderr(
    process: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(
        "print('hello')\nfrom starlette.applications import Starlette\napp = Starlette()\n"
    )

    done = process("routes", "service:app", "--json")

    assert done.json == {"ok": True, "routes": [], "rules": []}
    assert done.stderr == "hello\n"


def test_without_an_application_and_a_django_project_the_error_asks_for_one(
    keyguard: Program,
) -> None:
    done = keyguard("routes")

    assert done.status == 2
    assert "keyguard routes module:attribute, or for Django set DJANGO_SETTINGS_MODULE" in (
        done.sentence
    )


def test_settings_of_django_with_a_syntax_error_are_named_with_its_line(
    process: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mistyped.py").write_text("DEBUG = True\nALLOWED_HOSTS = [\n")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mistyped")

    assert process("routes").sentence == (
        "the project of DJANGO_SETTINGS_MODULE can't be imported: SyntaxError at mistyped.py:2"
    )


DJANGO = """
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.views import View
from rest_framework.views import APIView
from keyguard import Keyguard, Rule, require_scopes
from keyguard.adapters.rest_framework import HasScopes

SECRET_KEY = "x"
ROOT_URLCONF = "project"
ALLOWED_HOSTS = ["*"]
KEYGUARD = {"guard": Keyguard(
    "postgresql://nobody@127.0.0.1:1/x", public=["/healthz"], rules=[
        Rule("/internal/{rest:path}", public=True), Rule("/files/{rest:path}", public=True)])}
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "keyguard.adapters.django.KeyguardMiddleware",
]

def view(request, **named):
    return HttpResponse()

class Reports(View):
    def get(self, request, pk): ...

    @require_scopes("admin")
    def delete(self, request, pk): ...

class Rest(APIView):
    permission_classes = [HasScopes("analytics:read")]

    def get(self, request): ...

inner = [path("<int:pk>/", Reports.as_view()), path("page-<slug:name>.html", view)]
urlpatterns = [
    path("healthz", view),
    path("v1/", include(inner)),
    path("rest", Rest.as_view()),
    path("internal/reset", require_scopes("admin")(view)),
    path("internal/open", view),
    path("files/<path:rest>", view),
    re_path(r"^old/(?P<year>[0-9]{4})/$", view),
]
"""
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"


@pytest.mark.campaign("arguments1")
@pytest.mark.parametrize("arguments", [(), ("wsgi:application",)])
def test_a_django_project_is_read_by_its_settings_or_its_application(
    arguments: tuple[str, ...],
    process: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "project.py").write_text(DJANGO)
    (tmp_path / "wsgi.py").write_text(WSGI)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    done = process("routes", *arguments)

    assert (done.status, done.stderr) == (1, "")
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines()[1:10]] == [
        ["any", "/healthz", "public"],
        ["DELETE", "/v1/<int:pk>/", "scopes admin"],
        ["GET", "/v1/<int:pk>/", "key"],
        ["any", "/v1/page-<slug:name>.html", "key"],
        ["GET", "/rest", "scopes analytics:read"],
        ["any", "/internal/reset", "scopes admin"],
        ["any", "/internal/open", "public, not named so"],
        ["any", "/files/<path:rest>", "public"],
        ["any", "/^old/(?P<year>[0-9]{4})/$", "key"],
    ]
    assert done.stdout.count("unknown") == 4  # two wide rules may open the expression
    assert "its path can't be read, and the public rule '/files/{rest:path}'" in done.stdout


LANGUAGES = """
from keyguard import Keyguard, Rule

SECRET_KEY = "x"
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["*"]
LANGUAGES = [("en", "English"), ("de", "German")]
MIDDLEWARE = [
    "keyguard.adapters.django.KeyguardMiddleware",
    "django.middleware.locale.LocaleMiddleware",
]
KEYGUARD = {"guard": Keyguard("memory://", rules=[
    Rule("/pub/{rest:path}", public=True),
    Rule("/de/{rest:path}", public=True),
    Rule("/named/{name}/", public=True),
    Rule("/Ja/{rest:path}", public=True),
    Rule("/ab", public=True),
])}
"""
URLS = """
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy

def view(request, *args):
    return HttpResponse("served")

urlpatterns = [%s]
"""
SERVED = """
import json, sys, types, django
django.setup()
from django.test import Client, override_settings
for number, (urls, path, language) in enumerate(json.load(sys.stdin)):
    module = sys.modules[f"urls_{number}"] = types.ModuleType(f"urls_{number}")
    exec(urls, vars(module))
    with override_settings(ROOT_URLCONF=module.__name__):
        print(Client(headers={"Accept-Language": language}).get(path).content.decode())
"""
READ = """
import json, os, sys
import django.test, keyguard.adapters.django, keyguard.cli.routes, pydantic.type_adapter, rich.table
from keyguard.cli import main
for folder in json.load(sys.stdin):
    if not (child := os.fork()):  # which need not import anew what it runs
        os.chdir(folder)
        sys.path.insert(0, folder)
        sys.argv = ["keyguard", "routes", "--json"]
        os.dup2(os.open("said", os.O_CREAT | os.O_WRONLY), 1)
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
OPENED = [
    # A search finds its text anywhere; an alternative may begin differently.
    ("re_path('api/secret', view)", "/pub/api/secret", "en", "/pub/{path:path}", False),
    ("re_path('^v1/x$|^pub/alt$', view)", "/pub/alt", "en", "/pub/{path:path}", False),
    ("re_path('^(v1|pub)/alt$', view)", "/pub/alt", "en", "/pub/{path:path}", False),
    # The character before a quantifier is optional.
    ("re_path('^a/?b$', view)", "/ab", "en", "/ab", True),
    ("re_path('^a/*b$', view)", "/ab", "en", "/ab", True),
    ("re_path('^a/{0,1}b$', view)", "/ab", "en", "/ab", True),
    ("path('pub/', include([re_path('alt', view)]))", "/pub/x/alt", "en", None, False),
    (
        "path('pub', include([re_path('/alt', view)]))",
        "/pub/alt",
        "en",
        "/pub/{path:path}",
        False,
    ),
    ("re_path('^pub/', include([path('alt', view)]))", "/pub/alt", "en", None, False),
    ("re_path('^named/(.+)/$', view)", "/named/x/", "en", "/named/{name}/", False),
    (
        "re_path('^pub/(.+)/', include([path('x', view)]))",
        "/pub/a/x",
        "en",
        "/pub/{path:path}",
        False,
    ),
    # The language may be any, or be left out if it is the default language.
    ("*i18n_patterns(path('admin', view))", "/de/admin", "en", "/de/admin", False),
    (
        "*i18n_patterns(path('pub/x', view), prefix_default_language=False)",
        "/pub/x",
        "en",
        None,
        False,
    ),
    # A path that is translated is not read.
    (
        "path(gettext_lazy('Yes'), include([path('/x', view)]))",
        "/Ja/x",
        "de",
        "/Ja/{path:path}",
        False,
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What Django itself answers for each route that is open, all from one process."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "project.py").write_text(LANGUAGES)
    done = subprocess.run(
        [sys.executable, "-c", SERVED],
        input=json.dumps([(URLS % route[0], route[1], route[2]) for route in OPENED]),
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project",
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """What keyguard says of each, in a fork of one process that has imported Django."""
    folders = [tmp_path_factory.mktemp("read") for _ in OPENED]
    for folder, route in zip(folders, OPENED, strict=True):
        (folder / "project.py").write_text(LANGUAGES)
        (folder / "urls.py").write_text(URLS % route[0])
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps([str(folder) for folder in folders]),
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    statuses = map(int, done.stdout.splitlines())
    said = [(folder / "said").read_text() for folder in folders]
    return [Run(status, text, "") for status, text in zip(statuses, said, strict=True)]


@pytest.mark.parametrize("number", range(len(OPENED)), ids=[route[0] for route in OPENED])
def test_a_django_route_that_is_open_is_never_said_to_need_a_key(
    number: int, served: list[str], read: list[Run]
) -> None:
    *_, part, is_named = OPENED[number]
    done = read[number]

    assert served[number] == "served"
    found = [route for route in done.json["routes"] if route["public"] is not False]
    assert (part, is_named) in [(route["part"], route["problem"] is None) for route in found]
    assert done.status == int(any(route["problem"] for route in found))


def test_a_regular_expression_is_read_only_where_it_is_plain_text(
    process: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ["^v1/x$", r"^v1/y\Z", "^v1-a_b~@/$"]
    others = ["^v1/x", "v1/x$", "^v1/[0-9]+$", "^v1|pub$", "^(v1)$", r"^v1\.x$"]
    (tmp_path / "project.py").write_text(LANGUAGES)
    (tmp_path / "urls.py").write_text(
        URLS % "".join(f"re_path({regex!r}, view)," for regex in [*plain, *others])
    )
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    done = process("routes", "--json")

    assert {route["path"] for route in done.json["routes"] if route["public"] is None} == {
        f"/{regex}" for regex in others
    }
    told = [route for route in done.json["routes"] if route["path"] in {f"/{it}" for it in plain}]
    assert [(route["public"], route["problem"]) for route in told] == [(False, None)] * len(plain)


def test_a_django_project_without_the_middleware_is_a_problem(
    process: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project.py").write_text(f"{DJANGO}\nMIDDLEWARE = []\n")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    done = process("routes")

    assert done.status == 1
    assert "no keyguard middleware stands before it" in done.stdout


def test_the_report_fits_into_80_columns(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    window = terminal("routes", f"{APPS}:starlette_app")

    assert window.finish() == 0
    assert "\x1b[33mpublic" in window.shown
    assert max(map(len, window.text.splitlines())) <= 80


def test_the_key_store_is_not_opened(keyguard: Program) -> None:
    # Nothing listens at its address.
    assert apps.NOWHERE.startswith("postgresql://nobody@127.0.0.1:1/")
    assert keyguard("routes", f"{APPS}:starlette_app").status == 0
