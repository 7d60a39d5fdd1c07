"""`keyguard usage` and `keyguard hints`, on an application's guard whose days are replayed."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyguard import Key, Keyguard
from keyguard.cli.app import run
from keyguard.core.usage.values import ALLOWED, Cell, Flush
from keyguard.stores.memory.keys import MemoryStore
from tests.cli.conftest import Run
from tests.world import StandingClock

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Service:
    """A guard on a store in memory, with the command line on it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.clock = StandingClock(NOON)
        self.store = MemoryStore()
        self.guard = Keyguard(self.store, clock=self.clock, hooks=())
        self._capsys = capsys
        self._flushes = 0
        self.organize("acme")

    def organize(self, slug: str, **options: Any) -> None:
        self.guard.organizations.create(slug, **options)
        self.clock.advance(timedelta(seconds=1))

    def issue(self, organization: str = "acme", **options: Any) -> Key:
        self.clock.advance(timedelta(seconds=1))
        return self.guard.keys.issue(
            organization=organization, name="ci", scopes=["a:b"], **options
        ).key

    def count(
        self, key: Key, n: int, *, ago: timedelta = HOUR, outcome: str = ALLOWED, tag: str = ""
    ) -> None:
        start = (self.clock.now - ago).replace(minute=0, second=0)
        cell = Cell(key.organization, start, key.id, key.family, outcome, tag, n, 2 * n)
        self._flushes += 1
        self.store.usage().add(Flush("writer", self._flushes, self.clock.now, (cell,)))

    def __call__(self, *arguments: str) -> Run:
        self._capsys.readouterr()
        status = run(arguments, guard=self.guard)
        said = self._capsys.readouterr()
        return Run(status, said.out, said.err)


@pytest.fixture
def keyguard_here(capsys: pytest.CaptureFixture[str]) -> Service:
    return Service(capsys)


@pytest.fixture
def busy(keyguard_here: Service) -> Service:
    """A key with 1200 requests today and 3 yesterday, of which 1 was refused."""
    key = keyguard_here.issue()
    keyguard_here.count(key, 1200)
    keyguard_here.count(key, 2, ago=DAY)
    keyguard_here.count(key, 1, ago=DAY, outcome="rate_limited")
    return keyguard_here


def lines(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines()]


# keyguard usage


def test_usage_shows_the_requests_of_each_day(busy: Service) -> None:
    done = busy("usage", "acme")

    assert done.status == 0
    assert lines(done.stdout) == [
        ["Day", "Requests", "Units"],
        ["2026-11-21", "3", "6"],
        ["2026-11-22", "1,200", "2,400"],
    ]
    assert re.match(r"Everything is counted up to 2026-11-22 .* UTC \(.* ago\)\.\n", done.stderr)


@pytest.mark.parametrize(
    ("step", "first"),
    [
        ("15m", ["From", "Requests", "Units"]),
        ("hour", ["From", "Requests", "Units"]),
        ("week", ["Week", "Requests", "Units"]),
        ("month", ["Month", "Requests", "Units"]),
    ],
)
def test_usage_has_five_steps(busy: Service, step: str, first: list[str]) -> None:
    shown = lines(busy("usage", "acme", "--step", step).stdout)

    assert shown[0] == first
    period = {"week": ["2026-11-16"], "month": ["2026-11"]}.get(
        step, ["2026-11-22", "11:00", "UTC"]
    )
    assert shown[-1][: len(period)] == period


def test_times_are_those_of_the_organization_or_of_the_zone_that_is_asked_for(
    keyguard_here: Service,
) -> None:
    keyguard_here.organize("beta", time_zone="Asia/Tokyo")
    keyguard_here.count(keyguard_here.issue("beta"), 7, ago=-6 * HOUR)
    keyguard_here.clock.advance(8 * HOUR)

    own = keyguard_here("usage", "beta")
    other = keyguard_here("usage", "beta", "--zone", "UTC")

    assert lines(own.stdout)[-1][0] == "2026-11-23"
    assert lines(other.stdout)[-1][0] == "2026-11-22"


def test_a_start_may_be_a_day_of_the_zone(busy: Service) -> None:
    by_day = busy("usage", "acme", "--start", "2026-11-22", "--json").json
    by_time = busy("usage", "acme", "--end", "2026-11-22T00:00:00Z", "--json").json

    assert [item["n"] for item in by_day["items"]] == [1200]
    assert [item["n"] for item in by_time["items"]] == [3]


def test_usage_is_told_apart(busy: Service) -> None:
    shown = busy("usage", "acme", "--group-by", "outcome").stdout

    assert lines(shown) == [
        ["Day", "Outcome", "Requests", "Units"],
        ["2026-11-21", "allowed", "2", "4"],
        ["2026-11-21", "rate_limited", "1", "2"],
        ["2026-11-22", "allowed", "1,200", "2,400"],
    ]


def test_what_has_no_tag_is_shown_with_a_dash(busy: Service) -> None:
    assert lines(busy("usage", "acme", "--group-by", "tag").stdout)[1][1] == "-"


def test_the_usage_of_one_key_names_no_organization(busy: Service) -> None:
    other = busy.issue()
    busy.count(other, 5)
    busy.organize("beta")

    done = busy("usage", "--key", other.id, "--json")

    assert [item["n"] for item in done.json["items"]] == [5]


def test_the_only_organization_needs_no_name_and_one_of_several_does(busy: Service) -> None:
    assert len(busy("usage", "--json").json["items"]) == 2
    busy.organize("beta")
    assert busy("usage").status == 2
    assert "name an organization" in busy("usage").sentence


def test_usage_as_json_is_one_document_in_utc(busy: Service) -> None:
    key = busy("usage", "acme", "--json").json

    assert key["items"][0] == {
        "start": "2026-11-21T00:00:00.000000Z",
        "end": "2026-11-22T00:00:00.000000Z",
        **{"group": "", "n": 3, "units": 6},
    }
    assert (key["complete"], key["late"], key["next"]) == (False, [], None)
    assert key["as_of"].startswith("2026-11-22T11:59:")


def test_usage_as_csv_has_a_row_for_each_item(busy: Service) -> None:
    done = busy("usage", "acme", "--csv", "--group-by", "outcome")

    assert done.stderr == ""
    assert list(csv.reader(io.StringIO(done.stdout)))[:2] == [
        ["start", "end", "group", "requests", "units"],
        ["2026-11-21T00:00:00+00:00", "2026-11-22T00:00:00+00:00", "allowed", "2", "4"],
    ]


@pytest.mark.parametrize("tag", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", 'a",=1'])
def test_no_cell_of_the_csv_is_a_formula(busy: Service, tag: str) -> None:
    busy.count(busy.issue(), 1, tag=tag)

    shown = busy("usage", "acme", "--csv", "--group-by", "tag").stdout

    groups = [row[2] for row in csv.reader(io.StringIO(shown, newline=""))]
    assert (f"'{tag}" if tag[0] in "=+-@\t\r" else tag) in groups
    assert not any(group[:1] in tuple("=+-@\t\r") for group in groups)


def test_a_tag_shows_no_control_characters(busy: Service) -> None:
    busy.count(busy.issue(), 1, tag="\x1b[31mred")

    shown = busy("usage", "acme", "--group-by", "tag").stdout

    assert "\x1b" not in shown
    assert r"\x1b[31mred" in shown


def test_a_report_comes_in_pages_or_whole(busy: Service) -> None:
    ask = ("usage", "acme", "--group-by", "outcome")
    first = busy(*ask, "--limit", "2")
    after = re.search(r"add --after '(.+)', or --all", first.stderr)
    assert after is not None
    second = busy(*ask, "--after", after[1])

    assert (
        lines(first.stdout)[1:] + lines(second.stdout)[1:] == lines(busy(*ask, "--all").stdout)[1:]
    )


def test_all_pages_are_put_together(busy: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyguard.cli.pages._LARGEST_PAGE", 1)

    shown = busy("usage", "acme", "--group-by", "outcome", "--all", "--json").json

    assert [item["n"] for item in shown["items"]] == [2, 1, 1200]


def test_no_request_is_said_on_stderr(keyguard_here: Service) -> None:
    done = keyguard_here("usage", "acme")

    assert (done.status, done.stdout) == (0, "")
    assert "There was no request in that time.\n" in done.stderr


def test_a_process_that_is_late_is_told_of(busy: Service) -> None:
    busy.clock.advance(timedelta(minutes=5))

    assert "; 1 process is late.\n" in busy("usage", "acme").stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--csv", "--json"), "pass --csv or --json, not both"),
        (("--all", "--limit", "3"), "pass --limit or --all, not both"),
        (("--start", "yesterday"), "takes a point in time, not 'yesterday'"),
        (("--start", "2026-13-01"), "takes a point in time, not '2026-13-01'"),
        (("--step", "year"), "--step takes one of 15m, hour, day, week, month"),
        (("--zone", "Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (("--group-by", "colour"), "--group-by takes one of key, "),
        (("--limit", "0"), "a page takes 1 to 1000 items"),
        (("--after", "x"), "after takes the next of the previous page"),
    ],
)
def test_what_is_wrong_is_one_sentence(busy: Service, options: tuple[str, ...], words: str) -> None:
    done = busy("usage", "acme", *options)

    assert done.status == 2
    assert words in done.sentence


def test_a_guard_that_counts_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(capsys)
    service.guard = Keyguard(service.store, usage=False, hooks=())

    assert service("usage", "acme").status == 2
    assert "this guard counts no usage" in service("usage", "acme").sentence


# On a terminal


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def on_screen(
    service: Service, monkeypatch: pytest.MonkeyPatch, columns: int, encoding: str, *arguments: str
) -> list[str]:
    screen = Screen(encoding)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(arguments, guard=service.guard) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()


def test_bars_fill_a_terminal_of_80_columns(busy: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_screen(busy, monkeypatch, 80, "utf-8", "usage", "acme")

    assert [line.rstrip() for line in shown] == [
        "Day         Requests  Units",
        "2026-11-21         3      6  █",
        "2026-11-22     1,200  2,400  " + "█" * 50,
    ]


def test_bars_of_40_columns_are_shorter(busy: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_screen(busy, monkeypatch, 40, "utf-8", "usage", "acme")

    assert shown[-1] == "2026-11-22     1,200  2,400  " + "█" * 11


def test_a_terminal_without_such_characters_shows_others(
    busy: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_screen(busy, monkeypatch, 80, "ascii", "usage", "acme")

    assert shown[-1].endswith("  " + "#" * 50)


def test_where_no_bar_fits_there_is_none(busy: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_screen(busy, monkeypatch, 36, "utf-8", "usage", "acme")

    assert shown[-1] == "2026-11-22     1,200  2,400"


# keyguard hints


@pytest.fixture
def idle(keyguard_here: Service) -> Service:
    """Two organizations, each with a key that nobody has used for 91 days."""
    keyguard_here.organize("beta")
    for organization in ("acme", "beta", "acme"):
        keyguard_here.issue(organization)
    keyguard_here.clock.advance(91 * DAY)
    return keyguard_here


def test_hints_are_shown_with_their_ids(idle: Service) -> None:
    shown = idle("hints", "beta").stdout
    (key,) = idle.guard.keys.list(organization="beta")

    assert lines(shown)[0] == ["Hint", "Since", "(UTC)", "What"]
    assert f"unused:{key.id}  {key.created_at + 90 * DAY:%Y-%m-%d}  " in shown
    assert "Nobody has used the key for 91" in " ".join(shown.split())


def test_hints_as_json_have_their_evidence(idle: Service) -> None:
    (item,) = idle("hints", "beta", "--json").json["items"]
    (key,) = idle.guard.keys.list(organization="beta")

    assert item == {
        "id": f"unused:{key.id}",
        "kind": "unused",
        "organization": key.organization,
        "key_id": key.id,
        "family": key.family,
        "since": (key.created_at + 90 * DAY).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "evidence": {"last_used_at": "never", "days": 91},
        "text": "Nobody has used the key for 91 days: revoke it if nobody needs it.",
    }


def test_without_an_organization_hints_are_those_of_all(
    idle: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyguard.cli.pages._LARGEST_PAGE", 1)
    everything = [item["id"] for item in idle("hints", "--json").json["items"]]
    first = idle("hints", "--limit", "2", "--json").json
    second = idle("hints", "--limit", "2", "--after", first["next"], "--json").json

    assert len(everything) == 3
    assert [item["id"] for item in first["items"] + second["items"]] == everything
    assert second["next"] is None


def test_nothing_to_look_at_is_said_on_stderr(keyguard_here: Service) -> None:
    done = keyguard_here("hints")

    assert (done.status, done.stdout, done.stderr) == (0, "", "There is nothing to look at.\n")


def test_a_hint_is_dismissed_by_its_id(idle: Service) -> None:
    hint = idle("hints", "beta", "--json").json["items"][0]["id"]

    done = idle("hints", "--dismiss", hint)

    assert re.fullmatch(
        rf"Hint {hint} is not shown until 2027-03-23 .* UTC \(.*\)\.\n", done.stdout
    )
    assert idle("hints", "beta", "--json").json["items"] == []
    idle.clock.advance(30 * DAY)
    assert len(idle("hints", "beta", "--json").json["items"]) == 1


def test_dismissing_as_json_tells_until_when(idle: Service) -> None:
    hint = idle("hints", "beta", "--json").json["items"][0]["id"]

    done = idle("hints", "beta", "--dismiss", hint, "--json")

    assert json.loads(done.stdout) == {
        "id": hint,
        "dismissed_until": "2027-03-23T12:00:05.000000Z",
    }


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--for", "3d"), 2, "--for goes with --dismiss"),
        (("acme", "--dismiss", "unused:gone"), 1, "organization 'acme' has no hint 'unused:gone'"),
        (("--dismiss", "nonsense"), 2, "--dismiss takes the id of a hint"),
        (("--dismiss", "unused:0000000000000000"), 1, "there is no key '0000000000000000'"),
        (("nowhere",), 1, "there is no organization 'nowhere'; keyguard org list shows all"),
    ],
)
def test_what_is_wrong_with_hints_is_one_sentence(
    idle: Service, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = idle("hints", *arguments)

    assert done.status == status
    assert words in done.sentence


def test_new_hints_are_shown_once(idle: Service) -> None:
    shown = [item["id"] for item in idle("hints", "beta", "--json").json["items"]]
    assert [item["id"] for item in idle("hints", "beta", "--new", "--json").json["items"]] == shown
    others = {item["id"] for item in idle("hints", "--json").json["items"]} - {*shown}
    assert {item["id"] for item in idle("hints", "--new", "--json").json["items"]} == others
    assert idle("hints", "--new", "--json").json["items"] == []
