"""How calls are read and refused, whatever endpoint they are for."""

from __future__ import annotations

import pytest

from tests.admin.api.office import Office


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_call_without_a_key_and_without_a_person_is_answered_as_the_guard_does(
    office: Office,
) -> None:
    answer = office.both("GET", "/me")

    assert answer.status == 401
    assert answer["www-authenticate"] == 'Bearer realm="AIaaS"'


def test_a_key_learns_what_it_may(office: Office) -> None:
    issued = office.issue("admin")

    answer = office.both("GET", "/me", token=issued.token.reveal())

    assert answer.status == 200
    assert answer["cache-control"] == "no-store"
    assert answer.json["id"] == issued.key.id
    assert "read all keys" in answer.json["may"]


def test_a_person_learns_what_it_may(office: Office) -> None:
    answer = office.both("GET", "/me", person="developer")

    assert answer.json["roles"] == {"acme": "developer"}


def test_an_organization_is_shown_to_its_administrators(office: Office) -> None:
    path = f"/organizations/{office.acme.id}"
    by_key = office.both("GET", path, token=office.token("admin"))

    assert by_key.status == 200
    assert by_key["etag"] == '"1"'
    assert by_key == office.both("GET", "/organizations/acme", person="administrator")


def test_another_organization_is_as_one_that_does_not_exist(office: Office) -> None:
    token = office.token("admin")

    foreign = office.both("GET", f"/organizations/{office.other.id}", token=token)

    assert foreign.status == 404
    assert foreign == office.both("GET", "/organizations/org_0123456789abcdef", token=token)
    assert foreign == office.both("GET", "/nothing", token=token)


def test_a_scope_that_is_missing_is_named(office: Office) -> None:
    answer = office.both("GET", "/organizations/acme", token=office.token("inference:read"))

    assert answer.status == 403
    assert 'scope="admin"' in answer["www-authenticate"]


def test_a_method_that_a_path_does_not_have_is_refused(office: Office) -> None:
    answer = office.both("DELETE", "/me", token=office.token("admin"))

    assert (answer.status, answer["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_options_names_the_methods(office: Office) -> None:
    answer = office.both("OPTIONS", "/me", token=office.token("admin"))

    assert (answer.status, answer["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_head_has_the_fields_of_get(office: Office) -> None:
    token = office.token("admin")

    head, get = (office.both(method, "/me", token=token) for method in ("HEAD", "GET"))

    assert (head.status, head.headers, head.body) == (200, get.headers, b"")


def test_a_media_type_that_no_answer_has_is_refused(office: Office) -> None:
    answer = office.both("GET", "/me", person="developer", headers={"accept": "image/png"})

    assert answer.status == 406


def test_a_parameter_that_nobody_knows_is_refused(office: Office) -> None:
    answer = office.both("GET", "/me", person="developer", query="a=1")

    assert (answer.status, answer.json["pointer"]) == (422, "?a")
