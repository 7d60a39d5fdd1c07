"""The project that docs/how-to/django.md shows, file by file, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.examples.pages import blocks, page

pytestmark = pytest.mark.usefixtures("patience")

DRIVER = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django
from django.core.management import call_command
from django.test import Client

django.setup()
call_command("check", "--fail-level", "WARNING")
from project.guards import guard

call_command("migrate", verbosity=0)
from django.contrib.auth.models import User

visitor = Client()
visitor.force_login(User.objects.create_user("ann"))
guard.migrate()
organization = guard.organizations.create("acme")
answers = []
with guard:
    for scope in ("inference:write", "analytics:read"):
        issued = guard.keys.issue(organization=organization.id, name="ci", scopes=[scope])
        fields = {"Authorization": f"Bearer {issued.token.reveal()}"}
        for path in ("/healthz", "/v1/inference", "/v1/reports", "/v1/rest"):
            for headers in (fields, {}):
                answer = Client().get(path, headers=headers)
                limit = answer.headers.get("RateLimit-Policy")
                answers.append([path, scope if headers else None, answer.status_code, limit])
    for client in (Client(), visitor):
        for path in ("/v1/account", "/v1/inference"):
            who = "person" if client is visitor else "nobody"
            answers.append([path, who, client.get(path).status_code, None])
    told = visitor.get("/v1/account").json()
    for name in ("ann", "nobody"):
        issued = guard.keys.issue(organization=organization.id, name="ci", metadata={"user": name})
        owned = {"Authorization": f"Bearer {issued.token.reveal()}"}
        answer = Client().get("/v1/mine", headers=owned)
        answers.append(["/v1/mine", name, answer.status_code, answer.json().get("owner")])
    by_key = Client().get("/v1/account", headers=fields)
    answers.append(["/v1/account", "told", by_key.json(), told])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str | None], list[Any]]:
    folder = tmp_path_factory.mktemp("django")
    for code in blocks(page("docs/how-to/django.md"), "python"):
        file = folder / code.splitlines()[0].removeprefix("# ").removeprefix("add to ")
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as shown:
            shown.write(code)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=Path(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {(path, scope): rest for path, scope, *rest in found}


def test_only_public_paths_are_open(answers: dict[tuple[str, str | None], list[Any]]) -> None:
    found = {path: status for (path, scope), (status, _) in answers.items() if scope is None}

    assert found == {"/healthz": 200, "/v1/inference": 401, "/v1/reports": 401, "/v1/rest": 401}


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/inference", "inference:write"),
        ("/v1/reports", "analytics:read"),
        ("/v1/rest", "analytics:read"),
    ],
)
def test_a_view_takes_the_keys_with_its_scope(
    answers: dict[tuple[str, str | None], list[Any]], path: str, scope: str
) -> None:
    statuses = {key[1]: status for key, (status, _) in answers.items() if key[0] == path}

    assert [sent for sent, status in statuses.items() if status == 200] == [scope]
    assert set(statuses.values()) == {200, 401, 403}


def test_a_path_takes_keys_and_people_who_are_logged_in(
    answers: dict[tuple[str, str | None], list[Any]],
) -> None:
    found = {(path, who): status for (path, who), (status, _) in answers.items()}

    assert found["/v1/account", "nobody"] == 302  # to Django's login
    assert found["/v1/account", "person"] == 200
    assert found["/v1/inference", "person"] == 401
    by_key, by_person = answers["/v1/account", "told"]
    assert list(by_key) == ["organization"]
    assert by_person == {"person": "ann"}


def test_a_key_acts_for_a_user_of_the_project(
    answers: dict[tuple[str, str | None], list[Any]],
) -> None:
    assert answers["/v1/mine", "ann"] == [200, "ann"]
    assert answers["/v1/mine", "nobody"] == [401, None]


def test_answers_name_the_limits_of_views(answers: dict[tuple[str, str | None], list[Any]]) -> None:
    assert answers["/v1/inference", "inference:write"][1] == '"inference";q=60;w=60'
    assert answers["/v1/rest", "analytics:read"][1] == '"Report";q=60;w=60'
