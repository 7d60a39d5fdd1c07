"""`keyguard key create`, `list`, `show` and `update`."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from keyguard import Allow, Keyguard
from tests.cli.conftest import Program, Store
from tests.world import StandingClock

TOKEN = r"kg_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
CREATE = ("key", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")


def test_key_create_prints_exactly_these_fields_as_json(keyguard: Program, store: Store) -> None:
    created = keyguard(*CREATE, "--scope", "b:c", "--json").json

    (key,) = store.keys()
    assert list(created) == ["id", "token", "organization", "scopes", "expires_at"]
    assert re.fullmatch(TOKEN, created["token"])
    assert created["token"].split("_")[2] == created["id"] == key.id
    assert created["organization"] == key.organization
    assert created["scopes"] == ["a:b", "b:c"]
    assert created["expires_at"] is None


def test_key_create_as_json_leaves_stderr_empty_off_a_terminal(
    keyguard: Program, store: Store
) -> None:
    assert keyguard(*CREATE, "--json").stderr == ""


def test_off_a_terminal_stdout_is_the_token_alone(keyguard: Program, store: Store) -> None:
    done = keyguard(*CREATE)

    assert re.fullmatch(rf"{TOKEN}\n", done.stdout)
    assert re.search(r"^Scopes +a:b$", done.stderr, re.MULTILINE)
    assert done.stderr.endswith("The token was written to stdout. It is not shown again.\n")


def test_a_key_expires_after_the_time_given(keyguard: Program, store: Store) -> None:
    created = keyguard(*CREATE, "--expires-in", "90d", "--json").json

    (key,) = store.keys()
    assert key.expires_at == key.created_at + timedelta(days=90)
    assert re.fullmatch(TIME, created["expires_at"])
    assert datetime.fromisoformat(created["expires_at"]) == key.expires_at


def test_a_key_may_start_later_and_then_lasts_from_there(keyguard: Program, store: Store) -> None:
    keyguard(*CREATE, "--not-before", "2999-01-31", "--expires-in", "P1D")

    (key,) = store.keys()
    assert key.not_before == datetime(2999, 1, 31, tzinfo=UTC)
    assert key.expires_at == datetime(2999, 2, 1, tzinfo=UTC)


def test_scopes_may_be_repeated_or_separated_by_commas(keyguard: Program, store: Store) -> None:
    keyguard(*CREATE, "--scope", "b:c,c:d", "--scope", "d:*")

    assert store.keys()[0].scopes == {"a:b", "b:c", "c:d", "d:*"}


def test_a_key_may_have_no_scopes(keyguard: Program, store: Store) -> None:
    created = keyguard("key", "create", "--org", "acme", "--name", "ci", "--json").json

    assert keyguard("key", "show", created["id"], "--json").json["scopes"] == []


def test_metadata_are_names_and_values(keyguard: Program, store: Store) -> None:
    keyguard(*CREATE, "--metadata", "team=web", "--metadata", "query=a=b", "--metadata", "empty=")

    assert store.keys()[0].metadata == {"team": "web", "query": "a=b", "empty": ""}


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("--org", "nope"), 1, "there is no organization 'nope'; keyguard org list shows all"),
        (("--name", ""), 2, "a key's name takes 1 to 200 characters, not ''"),
        (("--name", "a\x1b[2J"), 2, "a key's name takes no control characters"),
        (("--name", "\udcff"), 2, "is not valid UTF-8"),
        (("--scope", "a*b"), 2, "'a*b' is not a valid scope"),
        (
            ("--scope", "a:b, inference write"),
            2,
            "--scope 'inference write' holds white space: separate scopes with commas",
        ),
        (("--expires-in", "90"), 2, "takes a length of time, not '90'"),
        (("--expires-in", "3000000d"), 2, "beyond the year 9999"),
        (("--not-before", "soon"), 2, "takes a point in time, not 'soon'"),
        (("--metadata", "team"), 2, "--metadata takes NAME=VALUE"),
        (("--metadata", "=web"), 2, "--metadata takes NAME=VALUE"),
        (("--metadata", "team=\x07"), 2, "metadata takes no control characters"),
        (("--metadata", "a=1", "--metadata", "a=2"), 2, "--metadata gives 'a' twice"),
        (
            ("--network", "192.0.2.1/24"),
            2,
            "'192.0.2.1/24' is not a valid network: use CIDR notation",
        ),
        (("--network", ""), 2, "'' is not a valid network"),
    ],
)
def test_a_wrong_option_creates_no_key(
    arguments: tuple[str, ...], status: int, sentence: str, keyguard: Program, store: Store
) -> None:
    done = keyguard(*CREATE, *arguments, "--json")

    assert done.status == status
    assert sentence in done.sentence
    assert store.keys() == ()


def test_a_scope_outside_the_catalogue_makes_no_key(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_SCOPES", "inference:read, inference:write")

    wanted = ("--scope", "inference:read", "--scope", "inference:raed")
    done = keyguard("key", "create", "--org", "acme", "--name", "ci", *wanted)

    assert done.status == 2
    assert done.sentence == (
        "unknown scope 'inference:raed'; this service knows: inference:read, inference:write"
    )
    assert store.keys() == ()


def test_a_disabled_organization_gets_no_key(keyguard: Program, store: Store) -> None:
    keyguard("org", "disable", "acme")

    done = keyguard(*CREATE)

    assert done.status == 1
    assert done.sentence == "organization 'acme' is disabled; enable it before issuing keys"
    assert store.keys() == ()


def test_the_list_shows_status_and_relative_times(keyguard: Program, store: Store) -> None:
    store.issue("first", scopes=["a:b"], expires_in=timedelta(days=90))
    store.issue("second", not_before=datetime(2999, 1, 1, tzinfo=UTC), scopes=["a:b"])
    gone = store.issue("third", scopes=["a:b", "b:c"])
    keyguard("key", "revoke", gone.key.id)

    lines = keyguard("key", "list", "--org", "acme").stdout.splitlines()

    assert re.fullmatch(r"Key +Name +Scopes +Status +Ends +Last used", lines[0])
    assert re.fullmatch(r"\w{16}  first +a:b +active +in 90 days +never", lines[1])
    assert re.fullmatch(r"\w{16}  second +a:b +not yet valid +never +never", lines[2])
    assert re.fullmatch(
        r"\w{16}  third +a:b +revoked +(just now|\d+ seconds? ago) +never", lines[3]
    )


def test_a_list_of_all_keys_names_their_organizations(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["a:b"]).key

    table = keyguard("key", "list").stdout

    assert re.search(rf"^{key.id}  acme +ci +a:b ", table, re.MULTILINE)


def test_no_line_of_a_list_is_longer_than_80_columns(keyguard: Program, store: Store) -> None:
    store.issue("a name that goes on " * 8, scopes=["inference:read", "inference:write", "x" * 90])

    for command in (("key", "list"), ("key", "list", "--org", "acme"), ("org", "list")):
        lines = keyguard(*command).stdout.splitlines()
        assert max(map(len, lines)) <= 80


def test_a_list_says_that_a_disabled_organization_stops_its_keys(
    keyguard: Program, store: Store
) -> None:
    store.issue(scopes=["a:b"])
    keyguard("org", "disable", "acme")

    assert "Organization acme is disabled" in keyguard("key", "list", "--org", "acme").stderr
    assert keyguard("key", "list", "--org", "acme", "--json").stderr == ""


def test_an_empty_list_says_so(keyguard: Program, store: Store) -> None:
    done = keyguard("key", "list")
    assert (done.status, done.stdout, done.stderr) == (0, "", "There are no keys to list.\n")

    assert keyguard("key", "list", "--json").json == {"items": [], "next": None}


def test_the_list_comes_in_pages_or_whole(keyguard: Program, store: Store) -> None:
    ids = [store.issue(scopes=["a:b"]).key.id for _ in range(3)]

    first = keyguard("key", "list", "--limit", "2", "--json").json
    rest = keyguard("key", "list", "--after", first["next"], "--json").json
    behind = keyguard("key", "list", "--after", "zz")
    assert (behind.status, behind.stderr) == (0, "Nothing comes after 'zz'.\n")
    whole = keyguard("key", "list", "--all", "--json").json

    assert [item["id"] for item in first["items"] + rest["items"]] == ids
    assert [item["id"] for item in whole["items"]] == ids
    assert whole["next"] is rest["next"] is None


def test_all_goes_through_every_page(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyguard.cli.pages._LARGEST_PAGE", 1)
    ids = [store.issue(scopes=["a:b"]).key.id for _ in range(3)]

    whole = keyguard("key", "list", "--all", "--json").json

    assert [item["id"] for item in whole["items"]] == ids


def test_a_limit_out_of_range_or_beside_all_is_wrong_usage(keyguard: Program, store: Store) -> None:
    for arguments in (("--limit", "0"), ("--limit", "1001"), ("--limit", "1", "--all")):
        done = keyguard("key", "list", *arguments)
        assert done.status == 2
        assert done.sentence


def test_show_tells_all_but_the_token(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"], metadata={"team": "web"}, expires_in=timedelta(days=9))

    shown = keyguard("key", "show", issued.key.id, "--json").json
    words = keyguard("key", "show", issued.key.id).stdout

    assert list(shown) == [
        *("id", "family", "organization", "name", "scopes", "status", "created_at", "not_before"),
        *("expires_at", "revoked_at", "revoked_reason", "revoked_note", "metadata", "limits"),
        *("allowed_networks", "owner", "successor", "grace_ends_at", "last_used_at"),
        "last_used_address",
    ]
    assert (shown["status"], shown["metadata"]) == ("active", {"team": "web"})
    for line in (r"Name +ci", r"Organization +acme \(org_\w{16}\)", r"Metadata +team=web"):
        assert re.search(f"^{line}$", words, re.MULTILINE)
    assert re.search(r"^Expires +20.* UTC \(in 9 days\)$", words, re.MULTILINE)
    assert issued.token.reveal() not in str(shown) + words


def test_show_says_that_a_disabled_organization_stops_the_key(
    keyguard: Program, store: Store
) -> None:
    key = store.issue(scopes=["a:b"]).key
    keyguard("org", "disable", "acme")

    assert "disabled: none of its keys works" in keyguard("key", "show", key.id).stdout


def test_an_unknown_key_is_not_found(keyguard: Program, store: Store) -> None:
    for command, *options in (("show",), ("update", "--name", "a"), ("rotate",), ("revoke",)):
        done = keyguard("key", command, "nope", *options)
        assert (done.status, done.sentence) == (1, "there is no key 'nope'")


def test_names_are_shown_as_they_are_and_never_as_markup(keyguard: Program, store: Store) -> None:
    name = "[red]a[/red] [/] :smile:"
    key = store.issue(name, scopes=["a:b"]).key

    assert name in keyguard("key", "show", key.id).stdout
    assert keyguard("key", "list").status == 0


def test_nothing_in_metadata_reaches_the_terminal_as_control(
    keyguard: Program, store: Store
) -> None:
    key = store.issue(scopes=["a:b"], metadata={"note": "[red]"}).key
    store.spoil(key.id, metadata=json.dumps({"note": "\x1b[2J\n\u202e\x07 [red]"}))

    shown = keyguard("key", "show", key.id).stdout

    assert r"note=\x1b[2J\n\u202e\x07 [red]" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", shown)


def test_a_key_is_bound_to_networks_and_says_so(keyguard: Program, store: Store) -> None:
    networks = ("--network", "2001:db8::/32", "--network", "192.0.2.0/24")

    created = keyguard(*CREATE, *networks)
    (key,) = store.keys()

    assert key.allowed_networks == ("192.0.2.0/24", "2001:db8::/32")
    for said in (created.stderr, keyguard("key", "show", key.id).stdout):
        assert re.search(r"^Networks +192\.0\.2\.0/24, 2001:db8::/32$", said, re.MULTILINE)
    shown = keyguard("key", "show", key.id, "--json").json
    assert shown["allowed_networks"] == ["192.0.2.0/24", "2001:db8::/32"]


def test_update_replaces_what_it_is_given_and_nothing_else(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["a:b"], limits=["9/minute"], metadata={"team": "web"}).key

    given = ("--scope", "b:c,c:d", "--network", "192.0.2.7")
    updated = keyguard("key", "update", key.id, *given, "--json").json

    assert updated["scopes"] == ["b:c", "c:d"]
    assert updated["allowed_networks"] == ["192.0.2.7/32"]
    assert [limit["rate"] for limit in updated["limits"]] == ["9/minute"]
    assert (updated["name"], updated["metadata"]) == ("ci", {"team": "web"})


def test_update_clears_the_fields_that_its_options_name(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["a:b"], limits=["9/minute"], allowed_networks=["192.0.2.0/24"]).key

    cleared = ("--no-scopes", "--no-limits", "--no-networks")
    said = keyguard("key", "update", key.id, *cleared).stdout

    (after,) = store.keys()
    assert said == f"Key {key.id} was changed.\n"
    assert (after.scopes, after.limits, after.allowed_networks) == (frozenset(), (), ())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scope", "a:b", "--no-scopes"), "give --scope or --no-scopes, not both"),
        (("--limit", "1/day", "--no-limits"), "give --limit or --no-limits, not both"),
        (("--network", "::1", "--no-networks"), "give --network or --no-networks, not both"),
        (("--scope", " , "), "--scope is given but names no scope"),
        (("--network", "home"), "'home' is not a valid network"),
        (("--owner", ""), "a key's owner takes 1 to 200 characters, not ''"),
        ((), "nothing to change: give an option; see keyguard key update --help"),
        (("--force",), "nothing to change: give an option; see keyguard key update --help"),
    ],
)
def test_a_wrong_option_of_update_changes_nothing(
    arguments: tuple[str, ...], sentence: str, keyguard: Program, store: Store
) -> None:
    key = store.issue(scopes=["a:b"]).key

    done = keyguard("key", "update", key.id, *arguments)

    assert done.status == 2
    assert sentence in done.sentence
    assert store.keys() == (key,)


def test_the_last_administrator_keeps_admin_without_force(keyguard: Program, store: Store) -> None:
    key = store.issue(scopes=["admin"]).key

    refused = keyguard("key", "update", key.id, "--scope", "a:b")
    forced = keyguard("key", "update", key.id, "--scope", "a:b", "--force")

    assert refused.status == 1
    assert refused.sentence == (
        f"key '{key.id}' is the last key of organization 'acme' that has 'admin'; "
        "issue another one first, or use --force"
    )
    assert forced.status == 0
    assert store.keys()[0].scopes == {"a:b"}


def test_reports_list_keys_that_work_and_end_soon_or_that_nobody_uses(
    keyguard: Program, store: Store
) -> None:
    soon = store.issue("soon", expires_in=timedelta(days=9)).key
    late = store.issue("late", expires_in=timedelta(days=99)).key
    ever = store.issue("ever").key
    with store.open() as guard:
        guard.keys.revoke(store.issue("gone", expires_in=timedelta(days=9)).key.id)
    with Keyguard(store.url, clock=StandingClock(datetime(2026, 1, 1, tzinfo=UTC))) as guard:
        old = guard.keys.issue(organization="acme", name="old").key

    def ids(*arguments: str) -> list[str]:
        return [item["id"] for item in keyguard("key", "list", *arguments, "--json").json["items"]]

    assert ids("--expiring-within", "30d") == [soon.id]
    assert ids("--expiring-within", "100d", "--org", "acme") == [soon.id, late.id]
    assert ids("--unused-for", "1d") == [old.id]
    assert ids("--family", ever.family) == [ever.id]
    said = keyguard("key", "list", "--unused-for", "1d", "--expiring-within", "1d")
    assert (said.status, said.stdout, said.stderr) == (0, "", "There are no such keys.\n")


@pytest.mark.parametrize("option", ["--expiring-within", "--unused-for"])
def test_a_report_over_a_length_of_zero_is_wrong_usage(
    option: str, keyguard: Program, store: Store
) -> None:
    for span in ("soon", "0", "0d", "-1d", ""):
        done = keyguard("key", "list", f"{option}={span}")
        assert done.status == 2
        assert done.sentence


def test_when_a_key_was_last_used_is_shown(keyguard: Program, store: Store) -> None:
    issued = store.issue(scopes=["a:b"])
    with Keyguard(store.url, record_addresses=True) as guard:
        field = f"Bearer {issued.token.reveal()}"
        assert isinstance(guard.authenticate([field], address="192.0.2.7"), Allow)

    shown = keyguard("key", "show", issued.key.id, "--json").json
    words = keyguard("key", "show", issued.key.id).stdout
    listed = keyguard("key", "list").stdout

    assert re.fullmatch(r"20.*T\d\d:\d\d:00\.000000Z", shown["last_used_at"])
    assert shown["last_used_address"] == "192.0.2.7"
    ago = r"(just now|1 minute ago)"
    assert re.search(rf"^Last used +20\S+ \d\d:\d\d UTC \({ago}\), from 192\.0\.2\.7$", words, re.M)
    assert re.search(rf"never +{ago}$", listed, re.MULTILINE)


def test_a_list_of_long_words_is_never_cut(keyguard: Program, store: Store) -> None:
    starts = datetime(2999, 1, 1, tzinfo=UTC)
    key = store.issue("z" * 40, scopes=["q" * 40], not_before=starts).key

    shown = keyguard("key", "list").stdout

    assert max(map(len, shown.splitlines())) <= 80
    assert key.id in shown
    for part, count in (("z", 40), ("q", 40), ("acme", 1), ("valid", 1), ("Last used", 1)):
        assert shown.replace(key.id, "").count(part) == count


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "create", "--org", "acme", "--name", "x", "--expires-in", "999999999d"),
        ("key", "create", "--org", "acme", "--name", "x", "--expires-in", "999999999w"),
        ("key", "create", "--org", "acme", "--name", "x", "--not-before", "9999-12-31T23:59-01:00"),
        ("key", "create", "--org", "acme", "--name", "x", "--not-before", "0001-01-01T00:00+01:00"),
        ("key", "list", "--expiring-within", "999999999d"),
        ("key", "list", "--unused-for", "999999999d"),
        ("key", "list", "--limit", "9" * 5000),
        ("key", "rotate", "KEY", "--grace", "999999999d"),
        ("key", "rotate", "KEY", "--expires-in", "999999999d"),
        ("org", "create", "other", "--max-key-lifetime", "999999999d"),
        ("org", "update", "acme", "--max-key-lifetime", "3652059d"),
        ("org", "update", "acme", "--max-keys", "9" * 4000),
        ("audit", "--limit", "9" * 4000),
    ],
)
def test_a_time_or_number_beyond_all_bounds_is_wrong_usage(
    keyguard: Program, store: Store, arguments: tuple[str, ...]
) -> None:
    key = store.issue().key.id

    done = keyguard(*(key if part == "KEY" else part for part in arguments))

    assert done.status == 2
    assert "unexpected" not in done.sentence


def test_a_key_that_never_ends_in_other_systems_is_shown_and_rotated(
    keyguard: Program, store: Store
) -> None:
    key = store.issue(expires_at=datetime.max.replace(tzinfo=UTC)).key.id

    assert "9999-12-31 23:59:59 UTC" in keyguard("key", "show", key).stdout
    assert keyguard("key", "rotate", key).status == 0
    for command in (("key", "list"), ("key", "list", "--json"), ("audit",), ("audit", "--json")):
        assert key in keyguard(*command).stdout
