"""`keyguard org`."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Program, Store

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_an_organization_is_created_with_a_slug_and_a_name(keyguard: Program, store: Store) -> None:
    created = keyguard("org", "create", "beta", "--name", "Beta Ltd.", "--json").json

    assert re.fullmatch(r"org_[0-9A-Za-z]{16}", created["id"])
    assert re.fullmatch(TIME, created["created_at"])
    assert (created["slug"], created["name"], created["disabled_at"]) == (
        "beta",
        "Beta Ltd.",
        None,
    )
    with store.open() as guard:
        assert guard.organizations.get("beta").id == created["id"]


def test_creating_an_organization_tells_its_id(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "create", "beta")

    assert re.fullmatch(
        r"Organization beta was created\. Its id is org_[0-9A-Za-z]{16}\.\n", done.stdout
    )


def test_a_slug_that_is_taken_is_refused(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "create", "acme")

    assert (done.status, done.sentence) == (1, "organization 'acme' exists already")


def test_a_malformed_slug_is_wrong_usage(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "create", "Acme Inc.")

    assert done.status == 2
    assert "'Acme Inc.' is not a valid organization slug" in done.sentence


def test_organizations_are_listed_oldest_first(keyguard: Program, store: Store) -> None:
    keyguard("org", "create", "beta")

    listed = keyguard("org", "list", "--json").json

    assert [item["slug"] for item in listed["items"]] == ["acme", "beta"]
    assert listed["next"] is None


def test_a_list_comes_in_pages(keyguard: Program, store: Store) -> None:
    keyguard("org", "create", "beta")

    first = keyguard("org", "list", "--limit", "1", "--json").json
    second = keyguard("org", "list", "--limit", "1", "--after", first["next"], "--json").json

    assert [item["slug"] for item in first["items"] + second["items"]] == ["acme", "beta"]
    assert second["next"] is None


def test_a_table_with_a_next_page_says_how_to_see_it(keyguard: Program, store: Store) -> None:
    keyguard("org", "create", "beta")

    done = keyguard("org", "list", "--limit", "1")

    assert re.match(r"Organization +Slug +Name +Status +Created\norg_\w{16} +acme ", done.stdout)
    assert re.fullmatch(r"There are more: add --after org_\w{16}, or --all\.\n", done.stderr)


def test_disabling_and_enabling_may_be_repeated(keyguard: Program, store: Store) -> None:
    said = [
        keyguard("org", command, "acme").stdout
        for command in ("disable", "disable", "enable", "enable")
    ]

    assert said[0].startswith("Organization acme was disabled; none of its keys works now. ")
    assert said[1].startswith("Organization acme has been disabled since 20")
    assert said[2].startswith("Organization acme was enabled. ")
    assert said[3].startswith("Organization acme is enabled already. ")


def test_an_organization_is_named_by_slug_or_by_id(keyguard: Program, store: Store) -> None:
    disabled = keyguard("org", "disable", "acme", "--json").json
    assert re.fullmatch(TIME, disabled["disabled_at"])

    enabled = keyguard("org", "enable", disabled["id"], "--json").json

    assert enabled == disabled | {"disabled_at": None}


def test_an_unknown_organization_is_not_found(keyguard: Program, store: Store) -> None:
    for command, *options in (("show",), ("update", "--name", "A"), ("disable",), ("enable",)):
        done = keyguard("org", command, "nope", *options, "--json")
        assert (done.status, done.sentence) == (
            1,
            "there is no organization 'nope'; keyguard org list shows all",
        )


def test_an_organization_has_a_ceiling_and_a_longest_lifetime(
    keyguard: Program, store: Store
) -> None:
    ceiling = ("--scope", "inference:*,admin", "--max-key-lifetime", "90d")
    created = keyguard("org", "create", "beta", *ceiling, "--json").json

    assert created["scopes"] == ["admin", "inference:*"]
    assert created["max_key_lifetime"] == 90 * 86_400
    with store.open() as guard:
        beta = guard.organizations.get("beta")
    assert beta.scopes == {"inference:*", "admin"}
    assert beta.max_key_lifetime == timedelta(days=90)


def test_a_ceiling_and_a_longest_lifetime_are_set_and_taken_away(
    keyguard: Program, store: Store
) -> None:
    set_ = keyguard(
        "org", "update", "acme", "--scope", "a:b", "--max-key-lifetime", "1d12h", "--json"
    )
    kept = keyguard("org", "update", "acme", "--name", "Acme", "--json").json
    gone = keyguard("org", "update", "acme", "--any-scope", "--no-max-key-lifetime", "--json").json

    assert (set_.json["scopes"], set_.json["max_key_lifetime"]) == (["a:b"], 129_600)
    assert (kept["scopes"], kept["max_key_lifetime"]) == (["a:b"], 129_600)
    assert (gone["scopes"], gone["max_key_lifetime"]) == (None, None)


def test_what_is_above_the_ceiling_is_refused(keyguard: Program, store: Store) -> None:
    keyguard("org", "update", "acme", "--scope", "a:b", "--max-key-lifetime", "90d")
    create = ("key", "create", "--org", "acme", "--name", "ci")

    beyond = keyguard(*create, "--scope", "admin")
    too_long = keyguard(*create, "--expires-in", "91d")

    assert (beyond.status, too_long.status) == (1, 1)
    assert beyond.sentence == "organization 'acme' may not have admin; its keys may have: a:b"
    assert too_long.sentence.startswith("keys of organization 'acme' work for at most 90 days")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scope", ""), "--scope is given but names no scope"),
        (("--scope", "a*"), "'a*' is not a valid scope"),
        (("--max-key-lifetime", "0"), "takes a length of time, not '0'"),
        (("--max-key-lifetime", ""), "takes a length of time, not ''"),
    ],
)
def test_a_malformed_ceiling_creates_nothing(
    arguments: tuple[str, str], sentence: str, keyguard: Program, store: Store
) -> None:
    done = keyguard("org", "create", "beta", *arguments)

    assert done.status == 2
    assert sentence in done.sentence
    assert len(keyguard("org", "list", "--json").json["items"]) == 1


@pytest.mark.parametrize(
    "both",
    [
        ("--scope", "a:b", "--any-scope"),
        ("--max-key-lifetime", "1d", "--no-max-key-lifetime"),
        ("--limit", "1/day", "--no-limits"),
    ],
)
def test_to_set_and_to_clear_at_once_is_wrong_usage(
    both: tuple[str, ...], keyguard: Program, store: Store
) -> None:
    done = keyguard("org", "update", "acme", *both)

    assert (done.status, done.sentence) == (2, f"give {both[0]} or {both[-1]}, not both")


def test_show_tells_all_of_an_organization(keyguard: Program, store: Store) -> None:
    ceiling = ("--scope", "a:b", "--max-key-lifetime", "90d", "--limit", "9/minute")
    keyguard("org", "update", "acme", *ceiling)
    keyguard("org", "disable", "acme")

    words = keyguard("org", "show", "acme").stdout
    shown = keyguard("org", "show", "acme", "--json").json

    for line in (
        *("Slug +acme", r"Name +Acme Inc\.", "Status +disabled", r"Disabled +20.* UTC \(.*\)"),
        *("Key scopes +a:b", "Keys work +at most 90 d"),
        r"Time zone +UTC",
        "Limit +organization-minute: 9/minute",
    ):
        assert re.search(f"^{line}$", words, re.MULTILINE), line
    assert list(shown) == [
        *("id", "slug", "name", "created_at", "disabled_at", "limits", "scopes"),
        *("max_key_lifetime", "max_keys", "time_zone", "plan", "metadata"),
    ]


def test_an_organization_without_a_ceiling_says_so(keyguard: Program, store: Store) -> None:
    words = keyguard("org", "show", "acme").stdout

    assert re.search("^Key scopes +any$", words, re.MULTILINE)
    assert re.search("^Keys work +for ever$", words, re.MULTILINE)


def test_an_organization_has_a_time_zone(keyguard: Program, store: Store) -> None:
    created = keyguard("org", "create", "beta", "--time-zone", "Asia/Kolkata", "--json").json
    changed = keyguard("org", "update", "beta", "--time-zone", "America/St_Johns", "--json").json
    shown = keyguard("org", "show", "beta").stdout
    kept = keyguard("org", "update", "beta", "--name", "Beta", "--json").json

    assert (created["time_zone"], changed["time_zone"]) == ("Asia/Kolkata", "America/St_Johns")
    assert re.search("^Time zone +America/St_Johns$", shown, re.MULTILINE)
    assert kept["time_zone"] == "America/St_Johns"
    trail = keyguard("audit", "--org", "beta", "--json").json["items"]
    assert [entry["after"].get("time_zone") for entry in trail] == [
        *(None, "America/St_Johns", "Asia/Kolkata"),
    ]


def test_an_organization_has_a_plan_of_the_settings(
    keyguard: Program, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "keyguard.toml"
    settings.write_text('[plans.pro]\nkey-minute = "1000/minute"\n')
    monkeypatch.setenv("KEYGUARD_CONFIG", str(settings))
    created = keyguard("org", "create", "beta", "--plan", "pro", "--json").json
    shown = keyguard("org", "show", "beta").stdout
    unknown = keyguard("org", "update", "beta", "--plan", "gold")
    taken = keyguard("org", "update", "beta", "--no-plan", "--json").json
    monkeypatch.delenv("KEYGUARD_CONFIG")
    without = keyguard("org", "update", "beta", "--plan", "gold")

    assert (created["plan"], taken["plan"]) == ("pro", None)
    assert re.search("^Plan +pro$", shown, re.MULTILINE)
    assert unknown.status == 2
    assert "there is no plan 'gold'; the setting plans has: pro" in unknown.sentence
    assert without.sentence == "there is no plan 'gold'; the settings name no plans"


def test_an_organization_has_metadata(keyguard: Program, store: Store) -> None:
    notes = ("--metadata", "crm=4711", "--metadata", "region=eu")
    created = keyguard("org", "create", "beta", *notes, "--json").json
    shown = keyguard("org", "show", "beta").stdout
    kept = keyguard("org", "update", "beta", "--name", "Beta", "--json").json
    changed = keyguard("org", "update", "beta", "--metadata", "crm=1", "--json").json
    cleared = keyguard("org", "update", "beta", "--no-metadata", "--json").json

    assert created["metadata"] == kept["metadata"] == {"crm": "4711", "region": "eu"}
    assert re.search("^Metadata +crm=4711$", shown, re.MULTILINE)
    assert (changed["metadata"], cleared["metadata"]) == ({"crm": "1"}, {})


def test_a_time_zone_that_is_not_known_is_wrong_usage(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "update", "acme", "--time-zone", "Mars/Olympus")

    assert done.status == 2
    assert "no time zone 'Mars/Olympus' is known here" in done.sentence


def test_an_update_without_a_change_is_wrong_usage(keyguard: Program, store: Store) -> None:
    for options in ((), ("--force",)):
        done = keyguard("org", "update", "acme", *options)

        sentence = "nothing to change: give an option; see keyguard org update --help"
        assert (done.status, done.sentence) == (2, sentence)
