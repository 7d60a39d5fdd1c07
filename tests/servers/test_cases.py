"""Every case of the table, byte by byte over a socket, against real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.cases import cases, names
from tests.servers.notes import PUBLIC, STATIC
from tests.servers.page import cell, cells_of_page
from tests.servers.running import Running, chosen, running
from tests.servers.wire import outcome


@pytest.fixture(scope="module", params=chosen())
def served(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as server:
        yield server


@pytest.mark.parametrize("name", names())
def test_what_arrives_gets_the_contract_s_answer_and_nothing_is_let_in(
    served: Running, name: str
) -> None:
    case = cases(served.keys.tokens)[name]

    before = len(served.notes("served", name))  # the page's test asks as well

    got = outcome(served.port, case.request, case.method, case.answers)

    reached, seen = served.notes("delivered", name), served.notes("served", name)[before:]
    deviation = served.server.deviates.get(name)
    refused_by_the_server = got.startswith(("server ", "closed")) and not seen
    if deviation is not None:
        assert got == deviation, "what is known of this server is no longer so"
    elif reached and not refused_by_the_server:
        assert got in case.expected
    else:
        assert not case.must_arrive
        assert refused_by_the_server or got in case.expected
    who = "live" if deviation == "200" else case.who
    principal = None if who is None else served.keys.ids[who]
    assert [note["principal"] for note in seen] == [principal] * got.count("200")
    assert "silent" not in got


def test_each_server_refuses_a_request_smuggled_behind_another_or_judges_it_by_its_key(
    served: Running,
) -> None:
    known = cases(served.keys.tokens)
    for name in ("a request inside the upload of one without key", "Content-Length and chunked"):
        outcome(served.port, known[name].request)

    for note in served.all_notes("served"):
        assert note["case"] in known
        if note["principal"] is None and note["method"] != "OPTIONS":
            assert note["path"] == PUBLIC or note["path"].startswith(STATIC)


def test_the_page_of_the_documentation_says_what_happens(served: Running) -> None:
    happened = {
        name: cell(outcome(served.port, case.request, case.method, case.answers))
        for name, case in cases(served.keys.tokens).items()
    }

    assert happened == cells_of_page(served.server.name)


def test_a_rule_s_scope_is_asked_for_under_every_spelling_of_its_path(served: Running) -> None:
    reader = served.keys.tokens["reader"].encode()
    for number, path in enumerate((b"/%77rite", b"/writ%65", b"/%77%72%69%74%65")):
        name = f"spelling {number}"
        request = (
            b"GET %s HTTP/1.1\r\nHost: h\r\nX-Case: %s\r\nAuthorization: Bearer %s\r\n"
            b"Connection: close\r\n\r\n" % (path, name.encode(), reader)
        )

        assert outcome(served.port, request) == "403 insufficient_scope"
        assert not served.notes("served", name)
