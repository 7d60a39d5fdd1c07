"""Digest schemes, the pepper ring and the pool for slow hashes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import multiprocessing
import re
import secrets
import sys
import threading
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import argon2
import bcrypt
import pytest
import trio

from keyguard import (
    AsyncKeyguard,
    ConfigurationError,
    CorruptDataError,
    Deny,
    HashTimeoutError,
    InvalidValueError,
    Keyguard,
    MissingExtraError,
    Reason,
    Secret,
    StoreUnavailableError,
)
from keyguard.core.tokens.foreign import read_formats
from keyguard.runtime.pool import HashPool
from keyguard.settings.hashing import TokenHasher, scheme_of
from keyguard.settings.sources import parse_peppers
from tests.world import World

TOKEN = Secret("kg_live_0000000000000000_" + "a" * 49)
OTHER = Secret("kg_live_0000000000000000_" + "b" * 49)
PEPPER = Secret("vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo")
OLD_PEPPER = Secret("Zb8WnTeKc5DyMhRgVq2SxPjAu4LfOo1i")


def b64(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "hasher",
    [
        TokenHasher(),
        TokenHasher(peppers=[PEPPER]),
        TokenHasher("sha256", peppers=[PEPPER]),
        TokenHasher("argon2id"),
    ],
    ids=["plain", "peppered", "plain by choice", "argon2id"],
)
def test_a_token_verifies_against_its_own_digest_only(hasher: TokenHasher) -> None:
    stored = hasher.hash(TOKEN)

    assert hasher.verify(TOKEN, stored)
    assert not hasher.verify(OTHER, stored)
    assert TOKEN.reveal() not in stored


def test_without_a_pepper_the_digest_is_sha256() -> None:
    digest = hashlib.sha256(TOKEN.reveal().encode()).digest()

    assert TokenHasher().hash(TOKEN) == f"$sha256${b64(digest)}"


def test_with_a_pepper_the_digest_is_hmac_under_the_newest() -> None:
    stored = TokenHasher(peppers=[PEPPER, OLD_PEPPER]).hash(TOKEN)
    digest = hmac.digest(PEPPER.reveal().encode(), TOKEN.reveal().encode(), "sha256")

    scheme, pepper_id, value = stored[1:].split("$")
    assert (scheme, value) == ("hmac-sha256", b64(digest))
    assert len(pepper_id) == 8
    assert pepper_id not in PEPPER.reveal()


def test_argon2id_uses_the_owasp_parameters() -> None:
    stored = TokenHasher("argon2id").hash(TOKEN)

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_every_pepper_of_the_ring_verifies() -> None:
    stored = TokenHasher(peppers=[OLD_PEPPER]).hash(TOKEN)

    assert TokenHasher(peppers=[PEPPER, OLD_PEPPER]).verify(TOKEN, stored)


def test_a_digest_without_a_pepper_verifies_after_one_was_set() -> None:
    assert TokenHasher(peppers=[PEPPER]).verify(TOKEN, TokenHasher().hash(TOKEN))


def test_a_missing_pepper_is_named_and_is_no_wrong_key() -> None:
    stored = TokenHasher(peppers=[PEPPER]).hash(TOKEN)

    with pytest.raises(CorruptDataError, match="add it to KEYGUARD_PEPPER"):
        TokenHasher(peppers=[OLD_PEPPER]).verify(TOKEN, stored)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        "$md5$x",
        "$sha256$",
        "$sha256$x$y",
        "$sha256$é",
        "$hmac-sha256$x",
        "$argon2id$nonsense",
        "$argon2id$v=19$m=19456,t=2,p=1$AAAA$",
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
    ],
)
def test_a_digest_that_is_none_is_never_a_match(stored: str) -> None:
    try:
        matched = TokenHasher(peppers=[PEPPER]).verify(TOKEN, stored)
    except CorruptDataError:
        matched = False
    assert matched is False


def test_a_stored_argon2_digest_can_t_ask_for_boundless_work() -> None:
    greedy = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")
    for modest, absurd in (("m=8", "m=4194304"), ("t=1", "t=100000"), ("p=1", "p=255")):
        with pytest.raises(CorruptDataError, match="more work"):
            TokenHasher().verify(TOKEN, greedy.replace(modest, absurd))


def test_an_unknown_key_costs_one_fast_hash_and_matches_nothing() -> None:
    for hasher in (TokenHasher(), TokenHasher(peppers=[PEPPER]), TokenHasher("argon2id")):
        assert hasher.verify(TOKEN, None) is False
        assert not hasher.is_slow(None)


def test_an_unknown_id_and_a_wrong_secret_cost_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    real_digest, real_compare = hmac.digest, hmac.compare_digest

    def digest(*args: Any) -> bytes:
        calls.append("digest")
        return real_digest(*args)

    def compare(*args: Any) -> bool:
        calls.append("compare")
        return real_compare(*args)

    hasher = TokenHasher(peppers=[PEPPER])
    stored = hasher.hash(OTHER)
    monkeypatch.setattr(hmac, "digest", digest)
    monkeypatch.setattr(hmac, "compare_digest", compare)

    hasher.verify(TOKEN, stored)
    wrong_secret, calls[:] = calls[:], []
    hasher.verify(TOKEN, None)

    assert calls == wrong_secret == ["digest", "compare"]


@pytest.mark.parametrize(
    "pepper",
    [
        "",
        "short",
        "a" * 31,
        "a" * 64,
        "ab" * 32,
        "abcdefgh" * 8,
        "change-me-change-me-change-me-12",
        "my-example-key-Zb8WnTeKc5DyMhRgV",
        "Zb8WnTeKc5DyMhRgVq2SxPjAu4LfOPEPPER",
        "0123456789abcdef0123456789ABCDEFx",
        "".join(map(chr, range(48, 88))),
        "9876543210zyxwvutsrqponmlkjihgfedcba",
        "correct-horse-battery-staple-and-some-more-words",
        "ThisIsTheKeyOfTheProductionDatabaseServer",
        "Zb8WnTeKc5DyMhRg" * 3,
        "Zb8WnTeKc5DyMhRgZb8WnTeKc5DyMhRgZb8WnTe",
        bytes(range(32)).hex(),
        bytes(range(64, 16, -1)).hex(),
        b64encode(bytes(range(40))).decode(),
        b64encode(b"change-me-change-me-change-me-12").decode(),
        urlsafe_b64encode(b"correct-horse-battery-staple-and-more").decode(),
        b"my very own key, which nobody knows".hex(),
        # what the documentation of Python's secrets, of Flask and of FastAPI shows
        "f9bf78b9a18ce6d46a0cd2b0b86df9da",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "django-insecure-k3v(z9@x!q7w$e5r^t2y&u8i*o1p)a6s",
    ],
)
def test_a_short_or_weak_pepper_is_refused_without_showing_it(pepper: str) -> None:
    with pytest.raises(InvalidValueError, match=r"secrets\.token_urlsafe") as refused:
        TokenHasher(peppers=[Secret(pepper)])
    if len(pepper) > 8:
        assert pepper not in str(refused.value)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: secrets.token_urlsafe(48),
        lambda: secrets.token_urlsafe(32),
        lambda: secrets.token_hex(32),
        lambda: b64encode(secrets.token_bytes(32)).decode(),
    ],
)
def test_a_random_pepper_is_taken_however_it_is_spelt(draw: Callable[[], str]) -> None:
    for _ in range(200):
        TokenHasher(peppers=[Secret(draw())])


def test_no_pepper_of_our_own_documentation_is_taken() -> None:
    root = Path(__file__).parent.parent
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("examples/**/*.py")]
    shown = [
        pepper
        for page in pages
        for pepper in re.findall(r"PEPPER(?:=|\": \")([^\s\"$]{32,})", page.read_text())
    ]

    for pepper in shown:
        with pytest.raises(InvalidValueError):
            TokenHasher(peppers=[Secret(pepper)])


def test_a_pepper_is_given_once() -> None:
    with pytest.raises(InvalidValueError, match="given twice"):
        TokenHasher(peppers=[PEPPER, Secret(PEPPER.reveal())])


def test_an_unknown_scheme_is_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidValueError, match="hmac-sha256, sha256, argon2id"):
        TokenHasher("md5")


def test_hmac_needs_a_pepper() -> None:
    with pytest.raises(ConfigurationError, match="set KEYGUARD_PEPPER"):
        TokenHasher("hmac-sha256")


def test_a_ring_is_read_newest_first_whatever_separates_it() -> None:
    assert [p.reveal() for p in parse_peppers(" one,two\n three ")] == ["one", "two", "three"]


def test_argon2id_can_be_chosen_for_all_keys() -> None:
    world = World({"hasher": "argon2id"})
    issued = world.issue()
    field = f"Bearer {issued.token.reveal()}"
    record = world.store.find_key(issued.key.id)

    assert record is not None
    assert record.digest.startswith("$argon2id$")
    assert world.guard.authenticate([field])
    assert asyncio.run(world.async_guard.authenticate([field]))


def test_a_warm_argon2id_key_that_went_stale_is_not_hashed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"hasher": "argon2id", "max_staleness": 0.0})
    field = f"Bearer {world.token()}"
    world.guard.authenticate([field])
    monkeypatch.setattr(world.guard._ports.hasher, "verify", None)

    assert not isinstance(world.guard.authenticate([field]), Deny)


def test_slow_hashes_run_off_the_event_loop() -> None:
    threads: list[int] = []
    pool = HashPool(workers=1, waiting=0)

    asyncio.run(pool.arun(lambda: threads.append(threading.get_ident())))

    assert threads != [threading.get_ident()]
    pool.close()


def test_no_slow_hash_runs_for_an_unknown_id(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"hasher": "argon2id"})
    issued = world.issue()
    world.store._keys.clear()
    monkeypatch.setattr(world.guard._ports.pool, "run", None)

    decision = world.guard.authenticate([f"Bearer {issued.token.reveal()}"])

    assert decision == Deny(Reason.KEY_UNKNOWN, issued.key.id)


def test_what_the_pool_can_t_take_is_refused_at_once() -> None:
    pool = HashPool(workers=1, waiting=1)
    release = threading.Event()

    async def flood() -> None:
        running = [asyncio.ensure_future(pool.arun(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="too many slow hashes"):
            await pool.arun(release.wait)
        with pytest.raises(StoreUnavailableError, match="too many slow hashes"):
            pool.run(release.wait)
        running.pop().cancel()  # it waits, and its place is free again
        await asyncio.sleep(0)
        running.append(asyncio.ensure_future(pool.arun(release.wait)))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="try again shortly"):
            await pool.arun(release.wait)
        release.set()
        await asyncio.gather(*running)
        assert await pool.arun(lambda: 7) == 7

    asyncio.run(flood())
    pool.close()


def test_a_sync_caller_waits_its_turn_and_no_longer_than_it_may() -> None:
    pool = HashPool(workers=1, waiting=1, patience=0.0)
    entered, release = threading.Event(), threading.Event()

    def job() -> None:
        entered.set()
        release.wait()

    busy = threading.Thread(target=pool.run, args=(job,))
    busy.start()
    entered.wait()
    with pytest.raises(StoreUnavailableError, match="too many slow hashes"):
        pool.run(lambda: None)
    release.set()
    busy.join()

    assert pool.run(lambda: 7) == 7


def test_a_job_that_fails_frees_its_place() -> None:
    pool = HashPool(workers=1, waiting=0)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            pool.run(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(pool.arun(lambda: 1 // 0))
    pool.close()


def test_jobs_that_got_no_thread_never_run_and_free_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = HashPool(workers=1, waiting=0)
    ran: list[int] = []

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            for number in range(3):
                with pytest.raises(StoreUnavailableError, match="no thread could be started"):
                    await pool.arun(lambda number=number: ran.append(number))  # type: ignore[misc]
        assert await pool.arun(lambda: 7) == 7
        assert ran == []

    asyncio.run(scenario())
    pool.close()


def test_a_full_pool_is_503_for_the_client() -> None:
    world = World({"hasher": "argon2id", "hash_workers": 1})
    field = f"Bearer {world.token()}"
    vars(world.guard._ports)["pool"] = pool = HashPool(workers=1, waiting=0)
    pool._shares.ask("", lambda: None)

    decision = world.guard.authenticate([field])

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.STORE_UNAVAILABLE


def test_under_trio_argon2id_says_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="under trio use the default hasher"):
            await HashPool(workers=1, waiting=0).arun(lambda: None)

    trio.run(main)


def test_guards_close_their_pool() -> None:
    with Keyguard("memory://", hasher="argon2id") as guard:
        guard.organizations.create("acme")
        guard.keys.issue(organization="acme", name="x")

    async def main() -> None:
        async with AsyncKeyguard("memory://", hasher="argon2id") as guard:
            await guard.organizations.create("acme")
            issued = await guard.keys.issue(organization="acme", name="x")
            assert issued.token

    asyncio.run(main())


@pytest.mark.parametrize("stored", ["$sha256$%%", "$sha256$" + "A" * 42, "$sha256$" + "A" * 44])
def test_a_damaged_digest_is_the_store_s_fault_not_the_client_s(stored: str) -> None:
    with pytest.raises(CorruptDataError, match="damaged"):
        TokenHasher().verify(TOKEN, stored)


def _hash_in_child(pool: HashPool, answers: Any) -> None:
    answers.put(pool.run(lambda: 7))


def test_a_forked_child_has_its_own_places() -> None:
    pool = HashPool(workers=1, waiting=0)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def fork() -> None:
        child = context.Process(target=_hash_in_child, args=(pool, answers))
        child.start()
        assert answers.get(timeout=30) == 7
        child.join()

    pool.run(fork)  # while the only place is taken


@pytest.mark.parametrize(
    "stored",
    [
        TokenHasher(peppers=[OLD_PEPPER]).hash(TOKEN),
        "$md5$x",
        "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$" + "A" * 43,
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$",
        "$argon2id$v=19$m=19456,t=2,p=1$AAAA$BBBB",
        "$argon2id$nonsense",
        "$2b$04$" + "/" * 53,
    ],
)
def test_a_check_that_fails_shows_no_token_in_our_frames(stored: str) -> None:
    with pytest.raises(CorruptDataError) as failed:
        TokenHasher(peppers=[PEPPER]).verify(TOKEN, stored)

    before = failed.value.__context__  # its frames are argon2's, which hold the token
    while before is not None:
        for frame, _ in traceback.walk_tb(before.__traceback__):
            assert TOKEN.reveal() not in repr(frame.f_locals)
            assert repr(TOKEN.reveal().encode()) not in repr(frame.f_locals)
        before = before.__context__
    trace = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    assert "verify" in [frame.name for frame in trace.stack]
    for frame in trace.stack:
        if "/src/keyguard/" in frame.filename:
            assert TOKEN.reveal() not in repr(frame.locals)
    assert trace.__cause__ is None


def test_a_hash_without_memory_shows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        def hash(self, raw: bytes) -> str:
            raise MemoryError

    monkeypatch.setattr("keyguard.settings.hashing._ARGON2", Starved())
    with pytest.raises(StoreUnavailableError, match="not enough memory") as failed:
        TokenHasher("argon2id").hash(TOKEN)

    assert failed.value.__cause__ is None


WEAK = Secret("hunter2hunter")
DRF = Secret("AbCdEfGh.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A")
SANCTUM = Secret("42|q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1Au2")
SEAM = Secret("my_company_BRTRKFsL_51FwqftsmMDHHbJAMEXXHCgG")
OF_BCRYPT = bcrypt.hashpw(DRF.reveal().encode(), bcrypt.gensalt(4)).decode()


def of_argon2(kind: argon2.Type, token: Secret = DRF) -> str:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind)
    return hasher.hash(token.reveal())


def sha256_of(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


FOREIGN = [
    (DRF, "$sha512$" + b64(hashlib.sha512(DRF.reveal().encode()).digest())),
    (SANCTUM, "$sha256-tail$|$" + sha256_of("q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1Au2")),
    (SEAM, "$sha256-tail$_$" + sha256_of("51FwqftsmMDHHbJAMEXXHCgG")),
    (DRF, of_argon2(argon2.Type.I)),
    (DRF, of_argon2(argon2.Type.D)),
    (DRF, of_argon2(argon2.Type.ID)),
    (DRF, OF_BCRYPT),
    (DRF, OF_BCRYPT.replace("$2b$", "$2a$")),
    (DRF, OF_BCRYPT.replace("$2b$", "$2y$")),
]


@pytest.mark.parametrize(("token", "stored"), FOREIGN, ids=[str(n) for n in range(len(FOREIGN))])
def test_what_other_systems_stored_verifies_as_it_is(token: Secret, stored: str) -> None:
    hasher = TokenHasher(peppers=[PEPPER])

    assert hasher.verify(token, stored)
    assert not hasher.verify(Secret(token.reveal() + "x"), stored)
    assert not hasher.verify(TOKEN, stored)
    assert hasher.is_slow(stored) is stored.startswith(("$argon2", "$2"))


@pytest.mark.parametrize(("token", "stored"), FOREIGN, ids=[str(n) for n in range(len(FOREIGN))])
def test_what_other_systems_stored_is_hashed_anew(token: Secret, stored: str) -> None:
    for hasher in (TokenHasher(), TokenHasher(peppers=[PEPPER]), TokenHasher("argon2id")):
        again = hasher.rehash(token)

        assert hasher.is_outdated(token, stored)
        assert hasher.verify(token, again)
        assert not hasher.is_outdated(token, again)
        assert hasher.is_slow(again) is hasher.rehashes_slowly(token)


def test_bcrypt_reads_72_bytes_as_it_always_did() -> None:
    long = "x" * 72
    stored = bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode()

    assert TokenHasher().verify(Secret(long + "y"), stored)
    assert not TokenHasher().verify(Secret(long[:-1] + "y"), stored)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (OF_BCRYPT.replace("$04$", "$15$"), "more work"),
        (OF_BCRYPT.replace("$04$", "$99$"), "more work"),
        (OF_BCRYPT[:-1], "damaged"),
        (OF_BCRYPT.replace("$04$", "$03$"), "damaged"),
        ("$2b$", "damaged"),
        ("$2x$04$" + "a" * 53, "no scheme"),
        ("$sha512$" + "A" * 85, "damaged"),
        ("$sha256-tail$.$" + "A" * 43, "no scheme"),
        ("$sha256-tail$|$", "damaged"),
        ("$weak$$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA", "no scheme"),
        ("$argon2id$nonsense", "damaged"),
        ("$hmac-sha256$00000000$" + "A" * 43, r"needs the pepper .* Settings\.from_env\(\) reads"),
    ],
    ids=[str(number) for number in range(12)],  # bcrypt's salt is another in each process
)
def test_a_foreign_digest_that_is_none_is_never_a_match(stored: str, said: str) -> None:
    with pytest.raises(CorruptDataError, match=said) as failed:
        TokenHasher(peppers=[PEPPER]).verify(DRF, stored)

    assert failed.value.__cause__ is None


def test_bcrypt_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)

    with pytest.raises(MissingExtraError, match=r"keyguard\[bcrypt\]"):
        TokenHasher().verify(DRF, OF_BCRYPT)


@pytest.mark.parametrize("peppers", [[], [PEPPER]], ids=["plain", "peppered"])
def test_a_guessable_token_is_always_hashed_slowly(peppers: list[Secret]) -> None:
    hasher = TokenHasher(peppers=peppers)

    stored = hasher.hash_slowly(WEAK)

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hasher.is_slow(stored)
    assert hasher.verify(WEAK, stored)
    assert not hasher.verify(TOKEN, stored)
    assert not hasher.is_outdated(WEAK, stored)


def test_a_guessable_token_stays_slow_although_its_public_part_is_long() -> None:
    hasher = TokenHasher(peppers=[PEPPER], formats=read_formats(["drf"]))
    token = Secret("a-public-part-of-many-characters-X9k2.hunter2")
    stored = hasher.hash_slowly(token)

    assert not hasher.is_outdated(token, stored)
    assert hasher.rehash(token).startswith("$argon2id$")
    assert hasher.rehash(WEAK).startswith("$argon2id$")
    assert TokenHasher(peppers=[PEPPER]).rehash(token).startswith("$hmac-sha256$")


def test_a_digest_is_outdated_where_hash_would_make_another() -> None:
    hashers = {
        "plain": TokenHasher(),
        "new pepper": TokenHasher(peppers=[PEPPER, OLD_PEPPER]),
        "old pepper": TokenHasher(peppers=[OLD_PEPPER]),
        "argon2id": TokenHasher("argon2id"),
    }
    for name, hasher in hashers.items():
        for other, made_by in hashers.items():
            stored = made_by.hash(TOKEN)
            assert hasher.is_outdated(TOKEN, stored) is (name != other)
    assert hashers["argon2id"].is_outdated(DRF, of_argon2(argon2.Type.ID))  # of fewer passes
    assert hashers["plain"].is_outdated(TOKEN, "nonsense")


def test_a_token_of_our_own_is_rehashed_under_the_current_scheme() -> None:
    world = World()
    hasher = TokenHasher(peppers=[PEPPER])

    for _ in range(50):
        token = world.issue().token
        assert hasher.rehash(token) == hasher.hash(token)


def test_what_a_digest_hangs_on_can_be_told() -> None:
    hasher = TokenHasher(peppers=[PEPPER])
    pepper_id = hasher.hash(TOKEN).split("$")[2]

    assert scheme_of(hasher.hash(TOKEN)) == f"hmac-sha256:{pepper_id}"
    assert scheme_of(hasher.hash_slowly(WEAK)) == "argon2id"
    assert scheme_of(TokenHasher().hash(TOKEN)) == "sha256"
    schemes = [scheme_of(stored) for _, stored in FOREIGN]
    assert schemes == [
        *("sha512", "sha256", "sha256", "argon2i", "argon2d", "argon2id"),
        *("bcrypt", "bcrypt", "bcrypt"),
    ]
    assert [scheme_of(stored) for stored in ("", "$md5$x", "x")] == ["unknown"] * 3


def test_a_hash_that_runs_may_take_longer_than_its_turn_is_waited_for() -> None:
    pool = HashPool(workers=1, waiting=1, patience=0.02)
    release = threading.Event()

    async def main() -> tuple[bool, BaseException | None]:
        running = asyncio.create_task(pool.arun(lambda: release.wait(20)))
        (waiting,) = await asyncio.gather(pool.arun(lambda: None), return_exceptions=True)
        assert not running.done()
        release.set()
        return await running, waiting

    answer, refused = asyncio.run(main())
    assert answer is True
    assert isinstance(refused, StoreUnavailableError)
    pool.close()


def test_a_hash_s_own_time_out_is_not_taken_for_the_pool_s() -> None:
    pool = HashPool(workers=1, waiting=0)

    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(pool.arun(fail))
    pool.close()


def test_a_hash_that_takes_too_long_is_given_up() -> None:
    pool = HashPool(workers=1, waiting=0, longest=0.02)
    release = threading.Event()

    async def main() -> None:
        with pytest.raises(HashTimeoutError, match="hash_timeout"):
            await pool.arun(lambda: release.wait(20))

    try:
        asyncio.run(main())
    finally:
        release.set()
        pool.close()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_keys_that_are_issued_together_wait_for_their_slow_hashes(flavour: str) -> None:
    """Issuing has the deadline of management, not of a request."""
    world = World({"hasher": "argon2id", "hash_workers": 1, "store_timeout": 0.001})
    owner, many = world.acme.id, 4

    def issue(number: int) -> Any:
        return world.guard.keys.issue(organization=owner, name=f"key {number}")

    async def issued() -> list[Any]:
        keys = world.async_guard.keys
        issuing = [keys.issue(organization=owner, name=f"key {n}") for n in range(many)]
        return await asyncio.gather(*issuing)

    if flavour == "sync":
        with ThreadPoolExecutor(many) as threads:
            assert len(list(threads.map(issue, range(many)))) == many
    else:
        assert len(asyncio.run(issued())) == many
