"""`keyguard org`."""

import re

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
        r"Organization beta is created\. Its id is org_[0-9A-Za-z]{16}\.\n", done.stdout
    )


def test_a_slug_that_is_taken_is_refused(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "create", "acme")

    assert (done.status, done.sentence) == (1, "organization 'acme' exists already")


def test_a_slug_that_is_none_is_wrong_usage(keyguard: Program, store: Store) -> None:
    done = keyguard("org", "create", "Acme Inc.")

    assert done.status == 2
    assert "'Acme Inc.' is no organization slug" in done.sentence


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


def test_a_table_that_is_not_all_says_how_to_go_on(keyguard: Program, store: Store) -> None:
    keyguard("org", "create", "beta")

    done = keyguard("org", "list", "--limit", "1")

    assert re.match(r"Organization +Slug +Name +Status +Created\norg_\w{16} +acme ", done.stdout)
    assert re.fullmatch(r"There are more: add --after org_\w{16}, or --all\.\n", done.stderr)


def test_disabling_and_enabling_may_be_repeated(keyguard: Program, store: Store) -> None:
    said = [
        keyguard("org", command, "acme").stdout
        for command in ("disable", "disable", "enable", "enable")
    ]

    assert said[0].startswith("Organization acme is disabled; none of its keys works. ")
    assert said[1].startswith("Organization acme was disabled already, since 20")
    assert said[2].startswith("Organization acme is enabled. ")
    assert said[3].startswith("Organization acme was enabled already. ")


def test_an_organization_is_named_by_slug_or_by_id(keyguard: Program, store: Store) -> None:
    disabled = keyguard("org", "disable", "acme", "--json").json
    assert re.fullmatch(TIME, disabled["disabled_at"])

    enabled = keyguard("org", "enable", disabled["id"], "--json").json

    assert enabled == disabled | {"disabled_at": None}


def test_an_unknown_organization_is_not_found(keyguard: Program, store: Store) -> None:
    for command in ("disable", "enable"):
        done = keyguard("org", command, "nope", "--json")
        assert (done.status, done.sentence) == (1, "there is no organization 'nope'")
