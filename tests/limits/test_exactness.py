"""One limit of a hundred, many processes, and never a hundred and one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import redis

from keyguard.stores.opening import open_store
from tests.limits.conftest import charge, limiter_of
from tests.services import python
from tests.stores.conftest import make_database

ONE = """
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
one = Charge(
    "keyguard:{org_1}:limit:fixed-window:3600:1",
    "limit-1", 100, 3600, Strategy.FIXED_WINDOW, True, 1,
)
"""
THREADS = (
    ONE
    + """
import os, sys, threading, time
from keyguard.stores.limiters import open_limiter
limiter = open_limiter(sys.argv[1], None, clock=time)
def work():
    for _ in range(2):
        if limiter.hit([one]).admitted:
            os.write(1, b"admitted\\n")  # whole, whatever the other threads write
threads = [threading.Thread(target=work) for _ in range(32)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
limiter.close()
print("done", flush=True)
"""
)
TASKS = (
    ONE
    + """
import asyncio, sys, time
from keyguard.stores.limiters import open_async_limiter
async def main():
    limiter = open_async_limiter(sys.argv[1], None, clock=time)
    async def work():
        for _ in range(2):
            if (await limiter.hit([one])).admitted:
                print("admitted", flush=True)
    print("ready", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(work() for _ in range(32)))
    await limiter.aclose()
    print("done", flush=True)
asyncio.run(main())
"""
)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def keys_without_an_end(url: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return [key for key in client.keys("*") if client.ttl(key) == -1]


@pytest.mark.campaign("async-postgresql-one killed", "sync-redis-one killed")
@pytest.mark.parametrize("killed", [False, True], ids=["", "one killed"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis"])
def test_exactly_a_hundred_are_admitted(
    kind: str, flavour: str, killed: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = make_database(kind, request, tmp_path)
    limiter = limiter_of(open_store(database.url))
    limiter.migrate()
    code, url = (THREADS, database.url) if flavour == "sync" else (TASKS, database.async_url)
    processes = [python(code, url) for _ in range(4)]
    lines: list[str] = []
    try:
        for process in processes:
            assert line(process) == "ready"
        go(processes[0])
        if killed:
            assert line(processes[0]) == "admitted"
            lines.append("admitted")
        for process in processes[1:]:
            go(process)
        if killed:
            processes[0].kill()
        for process in processes:
            assert process.stdout is not None
            lines += process.stdout.read().split()
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    assert set(lines) <= {"admitted", "done"}, lines
    assert lines.count("done") == (3 if killed else 4)
    admitted = lines.count("admitted")
    one = charge(amount=1000, window=3600, strategy="fixed-window")
    [tally] = limiter.adjust([one], [0], [0]).tallies
    limiter.close()
    # What was counted for a process that died before it could say so was admitted to nobody.
    assert 1000 - tally.remaining == 100
    assert admitted == 100 or (killed and admitted <= 100)
    if kind == "redis":
        assert keys_without_an_end(database.url) == []
