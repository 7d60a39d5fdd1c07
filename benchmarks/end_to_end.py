"""What a request costs a server: uvicorn's processor time for each, with wrk in front of it.

uvicorn runs on one core and wrk on another, over the loopback interface. Processor time is steady
where throughput is not. wrk is a package of Debian (``apt-get install wrk``).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.calls import PATH
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import Series
from tests.services import RedisServer, running

__all__ = ["measure"]

ROUNDS = 5
SECONDS = 4
CONNECTIONS = 32
PATIENCE = 30.0
MOST_WARM = 1.05
MOST_LIMITED = 1.2
MOST_LIMITED_BY_REDIS = 1.4
FLOOR = "hand-written"
TARGETS = {
    "keyguard, memory": (MOST_WARM, "1.01"),
    "keyguard, SQLite": (MOST_WARM, "0.93"),
    "keyguard, memory, a limit, headers": (MOST_LIMITED, "1.43"),
    "keyguard, Redis, a limit, headers": (MOST_LIMITED_BY_REDIS, "2.5"),
}


@dataclass(frozen=True)
class Case:
    """One application, and the kind of store behind it.

    Args:
        app: A name in :data:`benchmarks.served.CASES`.
        store: ``"memory"``, ``"SQLite"`` or ``"Redis"``.
    """

    app: str
    store: str = "memory"


CASES = {
    "bare": Case("bare"),
    FLOOR: Case("hand-written"),
    "hand-written, slowapi, headers": Case("slowapi"),
    "keyguard, memory": Case("guarded"),
    "keyguard, SQLite": Case("guarded", "SQLite"),
    "keyguard, memory, a limit, headers": Case("limited"),
    "keyguard, SQLite, a limit, headers": Case("limited", "SQLite"),
    "keyguard, Redis, a limit, headers": Case("limited", "Redis"),
}


def measure() -> Section:
    """Serve each application in turn, in every round, and load it."""
    why_not = _why_not()
    if why_not:
        return Section(f"Not measured: {why_not}.")
    found: dict[str, list[float]] = {name: [] for name in CASES}
    with ExitStack() as stack:
        redis = stack.enter_context(running(RedisServer))
        for number in range(ROUNDS):
            for name in sorted(CASES, key=list(CASES).index, reverse=bool(number % 2)):
                found[name].append(_microseconds(CASES[name], redis))
    costs = {name: Series(values) for name, values in found.items()}
    ratios = {name: cost / costs[FLOOR] for name, cost in costs.items()}
    rows = [[name, cost.spell(1), str(ratios[name])] for name, cost in costs.items()]
    verdicts = [
        Verdict(
            f"end to end, {name}: at most {most} times the hand-written middleware",
            ratios[name].median,
            most,
            str(ratios[name]),
            before,
        )
        for name, (most, before) in TARGETS.items()
    ]
    said = (
        "Processor time of uvicorn for each request, on one core, over uvloop and httptools, with "
        f"Starlette\nand {CONNECTIONS} connections of wrk from another core; {ROUNDS} rounds of "
        f"{SECONDS} seconds each, every case in every round."
    )
    head = ["end to end", "µs per request", "ratio to hand-written"]
    return Section(f"{said}\n\n{table(head, rows)}", verdicts)


def _why_not() -> str | None:
    if shutil.which("wrk") is None:
        return "wrk is not installed (apt-get install wrk)"
    if not Path("/proc/self/stat").exists() or not hasattr(os, "sched_setaffinity"):
        return "processor time is read from /proc, which is Linux's"
    if (os.cpu_count() or 1) < 2:
        return "server and client need a core each, and there is only one"
    return None


def _microseconds(case: Case, redis: RedisServer) -> float:
    """Return the server's processor time for one request."""
    with tempfile.TemporaryDirectory() as folder:
        url = {
            "memory": lambda: "memory://",
            "SQLite": lambda: f"sqlite:///{folder}/keys.db",
            "Redis": lambda: redis.create_database()[0],
        }[case.store]()
        with _served(case, url, Path(folder) / "token") as (server, address, token):
            wrk = ["wrk", "-t2", f"-c{CONNECTIONS}", "-H", f"Authorization: Bearer {token}"]
            _loaded([*wrk, "-d1s", address])
            before = _processor_seconds(server.pid)
            requests = _loaded([*wrk, f"-d{SECONDS}s", address])
            return (_processor_seconds(server.pid) - before) / requests * 1e6


@contextmanager
def _served(
    case: Case, url: str, token_file: Path
) -> Generator[tuple[subprocess.Popen[bytes], str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.served:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
        *("--log-level", "warning", "--no-access-log"),
    ]
    environ = {**os.environ, "CASE": case.app, "STORE": url, "TOKEN_FILE": str(token_file)}
    with _on_core(0):
        server = subprocess.Popen(command, env=environ, cwd=Path(__file__).parents[1])
    try:
        address = f"http://127.0.0.1:{port}{PATH}"
        yield server, address, _token(server, address, token_file)
    finally:
        server.terminate()
        server.wait(20)


def _token(server: subprocess.Popen[bytes], address: str, token_file: Path) -> str:
    """Return the token, once the server answers it with 200."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up and server.poll() is None:
        token = token_file.read_text(encoding="ascii") if token_file.exists() else ""
        if token:
            asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
            # It tells the token before it listens.
            with suppress(OSError), urllib.request.urlopen(asked, timeout=5):
                return token
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def _loaded(command: list[str]) -> int:
    """Run wrk, and return how many requests were answered, all of them with 200."""
    with _on_core(1):
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out:
        raise RuntimeError(f"a benchmark was answered with something other than 200:\n{out}")
    answered = re.search(r"(\d+) requests in", out)
    if answered is None:
        raise RuntimeError(f"wrk printed something else than expected:\n{out}")
    return int(answered.group(1))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _on_core(number: int) -> Generator[None]:
    """Let the processes that are started meanwhile run on one core."""
    before = os.sched_getaffinity(0)
    cores = sorted(range(os.cpu_count() or 1))
    os.sched_setaffinity(0, {cores[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
