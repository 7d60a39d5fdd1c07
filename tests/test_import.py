"""Keys of other systems, taken over and used."""

from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
from datetime import timedelta
from typing import Any

import argon2
import bcrypt
import pytest
from rest_framework_api_key.crypto import KeyGenerator

from keyguard import Allow, Deny, InvalidValueError, Keyguard, Reason, StoreUnavailableError
from keyguard.core.keys.results import ImportReport
from keyguard.core.management.importing import PORTION
from keyguard.stores.memory.keys import MemoryStore
from tests.foreign import SANCTUM, SEAM
from tests.world import World

PEPPER = "vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"
STRONG = "q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
FORMATS = ["drf", "sanctum", "seam", "prefix:8", "token"]


def world(**options: Any) -> World:
    patient = {"store_timeout": 60.0}  # a slow hash takes as long as the machine is busy
    return World({"imported_formats": FORMATS, "peppers": [PEPPER]} | patient | options)


def line(**fields: Any) -> str:
    return json.dumps({"organization": "acme", "name": "imported"} | fields)


def admits(one: World, token: str) -> bool:
    """Tell whether both flavours let a token in, cold and warm."""
    decisions = [one.guard.authenticate([f"Bearer {token}"]) for _ in range(2)]
    decisions += [asyncio.run(one.async_guard.authenticate([f"Bearer {token}"])) for _ in range(2)]
    allowed = [isinstance(decision, Allow) for decision in decisions]
    assert len(set(allowed)) == 1
    return allowed[0]


def of_argon2(token: str) -> str:
    return argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(token)


def samples() -> dict[str, tuple[str, str]]:
    """Return a token of each kind, and the line that imports it."""
    key, prefix, stored = KeyGenerator().generate()
    other, *_ = KeyGenerator().generate()
    public, seam, of_seam = SEAM[1]
    number, sanctum, of_sanctum = SANCTUM
    by_bcrypt = bcrypt.hashpw(STRONG[::-1].encode(), bcrypt.gensalt(4)).decode()
    return {
        "drf hash": (key, line(format="drf", lookup=prefix, hash=stored)),
        "drf token": (other, line(format="drf", token=other)),
        "seam hash": (seam, line(format="seam", lookup=public, hash=of_seam)),
        "seam token": (SEAM[0][1], line(format="seam", token=SEAM[0][1])),
        "sanctum hash": (sanctum, line(format="sanctum", lookup=number, hash=of_sanctum)),
        "token": (STRONG, line(token=STRONG)),
        "sha256": (
            STRONG[1:],
            line(hash=hashlib.sha256(STRONG[1:].encode()).hexdigest()),
        ),
        "argon2": (
            STRONG.lower(),
            line(format="prefix:8", lookup=STRONG[:8].lower(), hash=of_argon2(STRONG.lower())),
        ),
        "bcrypt": (
            STRONG[::-1],
            line(format="prefix:8", lookup=STRONG[::-1][:8], hash=by_bcrypt),
        ),
        "chosen by people": ("acme_ci.letmein", line(format="drf", token="acme_ci.letmein")),
        "short": ("AbCdEfGh.x7Kq", line(format="drf", token="AbCdEfGh.x7Kq")),
    }


def test_whatever_was_imported_works_as_it_is_and_nothing_else_does() -> None:
    one = world()
    imported = samples()

    report = one.guard.keys.import_tokens([text for _, text in imported.values()])

    assert report == ImportReport(imported=len(imported))
    for token, _ in imported.values():
        assert admits(one, token)
        assert not admits(one, token + "x")
        assert not admits(one, token[:-1])


def test_a_guessable_token_is_kept_under_argon2id_only_and_stays_there() -> None:
    imported = world()
    token = "a-public-part-of-many-characters-X9k2.hunter2"
    lines = [line(format="drf", token=token), line(token=STRONG)]
    assert imported.guard.keys.import_tokens(lines).imported == 2

    def digests() -> list[str]:
        return sorted(item.digest for item in imported.store.list_digests(after=None, limit=9))

    before = digests()
    assert [digest.split("$")[1] for digest in before] == ["argon2id", "hmac-sha256"]
    for sent in (token, STRONG):
        assert admits(imported, sent)
    assert digests() == before


def test_a_guessable_token_without_a_public_part_is_refused() -> None:
    imported = world()

    report = imported.guard.keys.import_tokens([line(token="letmein-please")])

    assert report.imported == 0
    assert "less than 112 bits" in report.refused[0].reason
    assert not admits(imported, "letmein-please")


def test_an_imported_key_has_what_its_row_says_and_an_entry_in_the_trail() -> None:
    one = world()
    one.guard.keys.import_tokens(
        [
            line(
                token=STRONG,
                scopes=["inference:read"],
                created_at="2025-01-31T09:00:00Z",
                expires_at="2027-01-31T09:00:00Z",
                metadata={"team": "web"},
                limits=["100/minute"],
            )
        ],
        actor="ada",
    )

    (key,) = one.guard.keys.list(organization="acme")
    (entry, *_) = one.guard.audit.list()

    assert (key.name, key.scopes, key.metadata) == ("imported", {"inference:read"}, {"team": "web"})
    assert [str(at)[:10] for at in (key.created_at, key.expires_at)] == ["2025-01-31", "2027-01-31"]
    assert [limit.rate for limit in key.limits] == ["100/minute"]
    assert key.family.startswith("fam_")
    assert key.family != "fam_" + "0" * 16
    assert (entry.action, entry.actor, entry.subject) == ("key.imported", "ada", key.id)
    assert STRONG not in repr(entry)


def test_an_import_that_runs_again_changes_nothing() -> None:
    one = world()
    lines = [text for _, text in samples().values()]
    one.guard.keys.import_tokens(lines)
    before = list(one.store.list_digests(after=None, limit=99)), len(list(one.guard.audit.list()))

    again = one.guard.keys.import_tokens(lines)

    assert again == ImportReport(present=len(lines))
    assert before == (
        list(one.store.list_digests(after=None, limit=99)),
        len(list(one.guard.audit.list())),
    )


def test_a_row_whose_key_was_hashed_anew_is_present() -> None:
    one = world(hasher="sha256")
    token, text = samples()["drf hash"]
    one.guard.keys.import_tokens([text])
    (stored,) = one.store.list_digests(after=None, limit=9)
    new = one.guard.settings.token_hasher.rehash(_secret(token))
    one.store.rehash_key(stored.id, stored.digest, new)

    again = [text, line(format="drf", token=token)]
    assert one.guard.keys.import_tokens(again[:1]) == ImportReport(present=1)
    assert one.guard.keys.import_tokens(again[1:]) == ImportReport(present=1)


def _secret(token: str) -> Any:
    from keyguard import Secret

    return Secret(token)


def test_a_dry_run_says_what_would_be_and_changes_nothing() -> None:
    one = world()
    lines = [text for _, text in samples().values()] + ["{}"]

    report = one.guard.keys.import_tokens(lines, dry_run=True)

    assert report.imported == len(lines) - 1
    assert [row.line for row in report.refused] == [len(lines)]
    assert not list(one.guard.keys.list())
    assert one.guard.keys.import_tokens(lines).imported == report.imported
    assert one.guard.keys.import_tokens(lines, dry_run=True).present == report.imported


def test_what_is_refused_is_told_by_line_and_does_not_stop_the_rest() -> None:
    one = world()
    one.guard.organizations.disable("other")
    one.guard.organizations.create(
        "bounded", scopes=["inference:read"], max_key_lifetime=timedelta(days=1)
    )
    lines = [
        line(token=STRONG),
        "",
        "nonsense",
        line(token=STRONG),
        line(token=f"00000001.{STRONG}", format="drf", organization="nobody"),
        line(token=f"00000002.{STRONG}", format="drf", organization="other"),
        line(token=f"00000003.{STRONG}", format="drf", organization="bounded", scopes=["admin"]),
        line(
            token=f"00000004.{STRONG}",
            format="drf",
            organization="bounded",
            scopes=["inference:read"],
            expires_at="2999-01-01T00:00:00Z",
        ),
        line(token=f"00000005.{STRONG}", format="drf", scopes=["not:known"]),
        line(token=f"00000006.{STRONG}", format="drf", expires_at="2020-01-01T00:00:00Z"),
        line(token=f"00000007.{STRONG}", format="drf", created_at="2999-01-01T00:00:00Z"),
        line(token=STRONG[4:], format="prefix:9"),
        line(
            token=f"00000008.{STRONG}",
            format="drf",
            organization="bounded",
            scopes=["inference:read"],
        ),
    ]

    report = one.guard.keys.import_tokens(iter(lines))

    assert report.imported == 2
    told = dict(report.refused)
    assert not [words for words in told.values() if STRONG[5:] in words]
    for number, words in {
        3: "one JSON object",
        4: "line 1 has the same token",
        5: "no organization 'nobody'",
        6: "is disabled; enable it before importing keys",
        7: "may not have admin",
        8: "work for at most 1 day",
        9: "not:known",
        10: "already have expired",
        11: "created_at lies in the future",
        12: "add it to imported_formats",
    }.items():
        assert words in told[number]
    assert len(told) == 10


def test_a_key_of_another_that_has_the_same_public_part_is_no_key_of_ours() -> None:
    one = world()
    one.guard.keys.import_tokens([line(format="sanctum", token=SANCTUM[1])])
    rows = [
        line(format="sanctum", token=f"{SANCTUM[0]}|{STRONG}"),
        line(format="sanctum", token=SANCTUM[1], organization="other"),
    ]

    for row in rows:
        report = one.guard.keys.import_tokens([row])
        assert [words for _, words in report.refused] == ["another key has the same public part"]


def test_progress_is_told_after_each_portion() -> None:
    one = world()
    lines = [line(hash=f"{number:064x}") for number in range(1, 2 * PORTION + 8)]
    told: list[int] = []

    report = one.guard.keys.import_tokens(lines, progress=told.append)

    assert report.imported == len(lines)
    assert told == [PORTION, 2 * PORTION, len(lines)]


def test_async_code_imports_as_well() -> None:
    one = world()
    lines = [text for _, text in samples().values()]

    report = asyncio.run(one.async_guard.keys.import_tokens(lines))

    assert report == ImportReport(imported=len(lines))


@pytest.mark.parametrize("rows", ["{}", b"{}", None, 7, {"token": STRONG}])
def test_what_is_no_list_of_rows_is_refused(rows: Any) -> None:
    with pytest.raises(InvalidValueError, match="rows takes a list"):
        world().guard.keys.import_tokens(rows)


class Failing(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def commit(self, commit: Any) -> bool:
        self.commits += 1
        if self.commits == 3:
            raise StoreUnavailableError("gone")
        return super().commit(commit)


def test_an_import_that_fails_goes_on_where_it_was_and_shows_no_token() -> None:
    lines = [line(token=f"{number:08d}.{STRONG}", format="drf") for number in range(1200)]
    with Keyguard(Failing(), imported_formats=["drf"]) as guard:
        guard.organizations.create("acme")

        with pytest.raises(StoreUnavailableError) as failed:
            guard.keys.import_tokens(lines)
        again = guard.keys.import_tokens(lines)

        assert (again.imported, again.present) == (700, 500)
    trace = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    for frame in trace.stack:
        if "/src/keyguard/" in frame.filename:
            assert STRONG not in repr(frame.locals)


def test_two_that_import_the_same_at_once_import_it_once() -> None:
    lines = [line(token=f"{number:08d}.{STRONG}", format="drf") for number in range(20)]

    class Overtaken(MemoryStore):
        overtaken = False

        def commit(self, commit: Any) -> bool:
            if commit.keys and not self.overtaken:
                self.overtaken = True
                with Keyguard(self, imported_formats=["drf"]) as other:
                    assert other.keys.import_tokens(lines[:7]).imported == 7
            return super().commit(commit)

    store = Overtaken()
    with Keyguard(store, imported_formats=["drf"]) as guard:
        guard.organizations.create("acme")
        report = guard.keys.import_tokens(lines)

        assert (report.imported, report.present) == (13, 7)
        assert len(list(guard.keys.list())) == 20


def test_a_foreign_token_is_remembered_like_our_own() -> None:
    one = world()
    token, text = samples()["bcrypt"]
    one.guard.keys.import_tokens([text])
    field = f"Bearer {token}".encode()

    assert not isinstance(one.guard._recall(field), Allow)
    one.guard.authenticate([field])
    assert isinstance(one.guard._recall(field), Allow)
    (key,) = one.guard.keys.list()
    one.guard.keys.revoke(key.id)
    assert not isinstance(one.guard._recall(field), Allow)
    decision = one.guard.authenticate([field])
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.KEY_REVOKED


def test_a_token_of_our_own_is_imported_under_its_own_id() -> None:
    here, there = world(), world()
    issued = there.issue("inference:read")

    report = here.guard.keys.import_tokens([line(token=issued.token.reveal())])

    assert report.imported == 1
    assert here.guard.keys.get(issued.key.id).name == "imported"
    assert admits(here, issued.token.reveal())
