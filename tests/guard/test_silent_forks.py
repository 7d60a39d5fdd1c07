"""A guard that is used before uWSGI forks its workers, of which uWSGI tells Python nothing.

So it does without ``--py-call-uwsgi-fork-hooks``. A thread that runs just then would leave the
interpreter's lock locked in the worker, for ever. ``make servers`` runs uWSGI itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from keyguard import Allow, AsyncKeyguard
from keyguard.runtime import process
from keyguard.runtime.process import after_fork, forks_unnoticed, renew_if_forked, start_thread
from tests.services import python
from tests.stores.conftest import make_database

MASTER: dict[str, object] = {"worker_id": int, "mule_id": int, "i_am_the_spooler": bool, "opt": {}}

USED = """
import ctypes, glob, os, sys, threading
from types import SimpleNamespace

worker = 0
sys.modules["uwsgi"] = SimpleNamespace(
    worker_id=lambda: worker, mule_id=int, opt={"master": True}, has_threads=1
)
from keyguard import Allow, Keyguard

def threads():
    return {thread.name for thread in threading.enumerate()}

def open_files():
    return [os.path.realpath(file) for file in glob.glob("/proc/self/fd/*")]

guard = Keyguard(sys.argv[1], store_timeout=60, management_timeout=60, limiter_timeout=60)
guard.migrate()
guard.organizations.create("acme")
first, second = (
    guard.keys.issue(organization="acme", name=name, limits="90/day").token.reveal()
    for name in ("first", "second")
)
assert isinstance(guard.authenticate([f"Bearer {first}"]), Allow)
assert threads() == {"MainThread"}, threads()
assert not [name for name in open_files() if "keys.db" in name]

child = ctypes.PyDLL(None).fork()  # which calls no hook of Python
if child == 0:
    worker = 1
    assert isinstance(guard.authenticate([f"Bearer {first}"]), Allow)
    assert "keyguard-background" in threads(), threads()
    other = threading.Thread(target=guard.organizations.get, args=["acme"])
    other.start()
for _ in range(30):
    assert guard.organizations.get("acme").slug == "acme"
    assert isinstance(guard.authenticate([f"Bearer {second}"]), Allow)
if child == 0:
    other.join()
    assert "keyguard-background" in threads(), threads()
    guard.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert threads() == {"MainThread"}, threads()
guard.close()
print("done")
"""


class Renewed:
    """Notes how often it began afresh."""

    def __init__(self) -> None:
        self.times = 0
        after_fork(self.again)

    def again(self) -> None:
        self.times += 1


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module of uWSGI, in a process that is going to fork."""
    module = SimpleNamespace(**MASTER)
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis"])
def test_a_guard_that_was_used_starts_no_thread_until_uwsgi_has_forked(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)

    assert python(USED, database.url).communicate()[0] == "done\n"


def test_no_thread_starts_while_uwsgi_is_going_to_fork(uwsgi: SimpleNamespace) -> None:
    thread = threading.Thread(target=int)

    with pytest.raises(RuntimeError, match="uWSGI"):
        start_thread(thread)
    uwsgi.worker_id = lambda: 1
    start_thread(thread)
    thread.join()


@pytest.mark.parametrize(
    "told",
    [
        {"worker_id": lambda: 1},
        {"mule_id": lambda: 1},
        {"i_am_the_spooler": lambda: True},
        {"opt": {"py-call-uwsgi-fork-hooks": True}},
        {"opt": {"py-call-uwsgi-fork-hooks": b"true"}},
    ],
)
def test_a_process_forks_unnoticed_only_where_uwsgi_has_not_forked_yet_and_tells_nobody(
    uwsgi: SimpleNamespace, told: dict[str, object]
) -> None:
    assert forks_unnoticed()
    vars(uwsgi).update(told)
    assert not forks_unnoticed()


@pytest.mark.parametrize("off", [b"false", b"off", b"No", b"0"])
def test_an_option_of_uwsgi_may_say_that_it_tells_nobody(
    uwsgi: SimpleNamespace, off: bytes
) -> None:
    uwsgi.opt = {"py-call-uwsgi-fork-hooks": off}
    assert forks_unnoticed()


@pytest.mark.parametrize("module", [SimpleNamespace(), SimpleNamespace(worker_id=0)])
def test_another_module_may_have_the_name_of_uwsgi_s(
    module: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    assert not forks_unnoticed()


@pytest.mark.parametrize("hasher", ["sha256", "argon2id"])
def test_a_guard_for_async_code_is_used_before_uwsgi_forks(
    uwsgi: SimpleNamespace, tmp_path: Path, hasher: str
) -> None:
    del uwsgi
    before = threading.active_count()

    async def use() -> None:
        guard = AsyncKeyguard(f"sqlite:///{tmp_path}/keys.db", hasher=hasher)
        await guard.migrate()
        await guard.organizations.create("acme")
        issued = await guard.keys.issue(organization="acme", name="a")
        found = await guard.authenticate([f"Bearer {issued.token.reveal()}"])
        assert isinstance(found, Allow)
        assert threading.active_count() == before
        await guard.aclose()

    asyncio.run(use())


def test_a_child_begins_afresh_once_also_where_python_was_not_told_of_the_fork() -> None:
    renewed = Renewed()
    renew_if_forked()
    reading, writing = os.pipe()
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        times = [renewed.times]
        for _ in range(2):
            renew_if_forked()
            times.append(renewed.times)
        os.write(writing, repr(times).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"[0, 1, 1]"
    os.close(reading)
    os.close(writing)
    assert renewed.times == 0


def test_a_child_of_which_python_was_told_has_begun_afresh() -> None:
    renewed = Renewed()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        renew_if_forked()
        os.write(writing, f"{renewed.times} {process._renewing.locked()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"1 False"
    os.close(reading)
    os.close(writing)
