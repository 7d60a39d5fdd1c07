"""SQL servers that are some milliseconds away: connections are opened beside the calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
import pytest

from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import StoreError, StoreUnavailableError
from keyguard.runtime.deadlines import awithin, within
from keyguard.stores.opening import open_async_store, open_store
from tests.links import Link
from tests.services import MariaDB, PgBouncer, PostgreSQL, running
from tests.stores.conftest import Database, Plain
from tests.stores.records import key, organization, record
from tests.stores.test_redis_tls import Authority

pytestmark = pytest.mark.usefixtures("no_garbage")

WATCHDOG = pytest.mark.timeout(120, func_only=True)
CHARGE = Charge("k:{far}:x", "x", 1000, 3600, Strategy.FIXED_WINDOW, enforce=True, cost=1)


def through(url: str, link: Link) -> str:
    """Return the URL of the same database by way of a link."""
    parts = urlsplit(url)
    query = {name: value for name, value in parse_qsl(parts.query) if "/" not in value}
    who = parts.netloc.rpartition("@")[0]
    place = f"{who}@127.0.0.1:{link.port}"
    return urlunsplit(parts._replace(netloc=place, query=urlencode(query)))


def address(url: str) -> str:
    """Return the socket in a URL of the tests' servers."""
    options = dict(parse_qsl(urlsplit(url).query))
    return options.get("unix_socket") or f"{options['host']}/.s.PGSQL.5432"


@pytest.fixture
def link(served: Database) -> Iterator[Link]:
    """A link to a database with one key, which was made on the direct way."""
    store = Plain(served.backend())
    store.add_organization(organization())
    store.add_key(record())
    store.close()
    link = Link(address(served.url))
    yield link
    link.close()


class Far:
    """A store and its counters, called with a deadline as guards do, in either flavour."""

    def __init__(self, flavour: str, url: str, runner: asyncio.Runner) -> None:
        self.runner = runner if flavour == "async" else None
        self.store: Any = open_store(url) if self.runner is None else None
        if self.runner is not None:
            self.store = self.runner.run(self._opened(url))
        self.counters = self.store.counters(owned=False)
        self.late = 0

    async def _opened(self, url: str) -> Any:
        return open_async_store(url)

    def call(self, seconds: float, call: Callable[[Any], Any], target: Any) -> Any:
        if self.runner is None:
            with within(seconds):
                return call(target)

        async def awaited() -> Any:
            async with awithin(seconds):
                return await call(target)

        try:
            return self.runner.run(awaited())
        except TimeoutError as late:
            raise StoreUnavailableError("late") from late

    def find(self, seconds: float) -> Any:
        return self.call(seconds, lambda store: store.find_key(key().id), self.store)

    def hit(self, seconds: float) -> Any:
        return self.call(seconds, lambda counters: counters.hit([CHARGE]), self.counters)

    def pause(self) -> None:
        """Let what was begun beside the calls go on."""
        if self.runner is None:
            time.sleep(0.01)
        else:
            self.runner.run(asyncio.sleep(0.01))

    def close(self) -> None:
        if self.runner is None:
            self.store.close()
        else:
            self.runner.run(self.store.aclose())

    def comes_to(self, call: Callable[[float], Any], seconds: float) -> Any:
        """Call until it is answered in time; the test's watchdog bounds it."""
        while True:
            try:
                return call(seconds)
            except StoreError:
                self.late += 1
                self.pause()


@pytest.fixture
def far(
    flavour: str, served: Database, link: Link, runner: asyncio.Runner
) -> Iterator[Callable[..., Far]]:
    opened: list[Far] = []

    def open_far(**options: str) -> Far:
        url = through(served.url if flavour == "sync" else served.async_url, link)
        mark = "&" if "?" in url else "?"
        far = Far(flavour, url + (mark + urlencode(options) if options else ""), runner)
        opened.append(far)
        return far

    yield open_far
    link.delay = 0.0
    for each in opened:
        each.close()


@WATCHDOG
@pytest.mark.campaign("async-postgresql-0.005", "sync-mariadb-0.005")
@pytest.mark.parametrize("way", [0.001, 0.005, 0.02, 0.08])
def test_a_store_at_a_distance_comes_to_work_and_stays_so(
    far: Callable[..., Far], link: Link, way: float
) -> None:
    # Four round trips, and a busy machine's share: less than opening a connection takes.
    enough = 8 * way + 0.25
    link.delay = way
    there = far()
    assert there.comes_to(there.find, enough) == record()
    assert there.comes_to(there.hit, 2 * enough).admitted
    opened, late = link.opened, there.late
    for _ in range(5):
        assert there.comes_to(there.find, enough) == record()
        assert there.comes_to(there.hit, 2 * enough).admitted
    # Those that are kept ready; a call that a busy machine made late has lost some, too.
    assert link.opened - opened <= 2 + 4 * (there.late - late)


@pytest.mark.campaign(
    "sync-postgresql-0.06", "async-mariadb-0.1]", "async-postgresql-0.18", "sync-mariadb-0.22"
)
@WATCHDOG
@pytest.mark.parametrize("seconds", [0.06, 0.1, 0.14, 0.18, 0.22])
def test_whatever_time_a_call_has_beyond_one_round_trip_it_comes_to_work(
    far: Callable[..., Far], link: Link, seconds: float
) -> None:
    link.delay = 0.02
    there = far()
    assert there.comes_to(there.find, seconds) == record()


@pytest.mark.campaign("sync-postgresql", "async-mariadb")
@WATCHDOG
def test_a_connection_that_came_too_late_serves_the_next_call(
    far: Callable[..., Far], link: Link
) -> None:
    link.delay = 0.1
    there = far()
    with pytest.raises(StoreUnavailableError):
        there.find(0.05)
    while link.trips < 1:
        there.pause()
    link.delay = 0.0
    assert there.comes_to(there.find, 60.0) == record()
    assert link.opened <= 2  # the late one, and one to be kept


def least_trips(link: Link, call: Callable[[], object]) -> int:
    """Return how many trips a call takes; a connection that is opened beside it makes some, too."""
    found: list[int] = []
    for _ in range(5):
        before = link.trips
        call()
        found.append(link.trips - before)
    return min(found)


@WATCHDOG
def test_a_warm_look_up_is_one_round_trip(far: Callable[..., Far], link: Link) -> None:
    there = far()
    there.comes_to(there.find, 60.0)
    assert least_trips(link, lambda: there.find(60.0)) == 1


@WATCHDOG
def test_a_new_connection_takes_few_round_trips_before_its_first_use(
    far: Callable[..., Far], link: Link
) -> None:
    there = far()
    there.comes_to(there.find, 60.0)
    assert link.opened <= 2  # the late one, and one to be kept
    assert link.trips <= 5 + 1  # the look-up is the last


@WATCHDOG
def test_a_link_that_is_cut_and_mended_is_got_over(far: Callable[..., Far], link: Link) -> None:
    there = far()
    assert there.comes_to(there.find, 60.0) == record()
    link.cut()
    with pytest.raises(StoreUnavailableError):
        there.find(0.5)
    link.mend()
    assert there.comes_to(there.find, 60.0) == record()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Link]:
    """A link to nowhere: it takes connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener  # type: ignore[misc]


@pytest.mark.campaign("sync")
@WATCHDOG
@pytest.mark.parametrize("served", ["postgresql"], indirect=True)
def test_a_host_that_hangs_is_got_past(
    far: Callable[..., Far], served: Database, link: Link, flavour: str, silent: Any,
    runner: asyncio.Runner,
) -> None:  # fmt: skip
    name = urlsplit(served.url).path
    hosts = f"host=127.0.0.1:{silent.getsockname()[1]}&host=127.0.0.1:{link.port}"
    url = f"postgresql://keyguard@{name}?{hosts}&connect_timeout=2"
    there = Far(flavour, url, runner)
    assert there.comes_to(there.find, 0.25) == record()
    there.close()


@WATCHDOG
def test_a_warm_hit_takes_few_round_trips(
    far: Callable[..., Far], link: Link, served: Database
) -> None:
    there = far()
    there.comes_to(there.hit, 60.0)
    trips = least_trips(link, lambda: there.hit(60.0))
    assert trips == (2 if served.kind == "postgresql" else 3)


class TlsMariaDB(MariaDB):
    """A MariaDB that takes TLS, on its socket too."""

    def __init__(self) -> None:
        super().__init__()
        self.folder.chmod(0o755)
        self.authority = Authority(self.folder / "authority", "ca")
        self.certificate, self.private = self.authority.issue("server")

    def command(self) -> list[str]:
        files = {"cert": self.certificate, "key": self.private, "ca": self.authority.certificate}
        return [*super().command(), *(f"--ssl-{name}={file}" for name, file in files.items())]


class TlsPgBouncer(PgBouncer):
    """A pooler that takes nothing but TLS."""

    def __init__(self, database: PostgreSQL) -> None:
        super().__init__(database)
        self.folder.chmod(0o755)
        self.authority = Authority(self.folder / "authority", "ca")
        self.certificate, self.private = self.authority.issue("server")

    def install(self) -> None:
        super().install()
        settings = {
            "sslmode": "require",
            "cert_file": self.certificate,
            "key_file": self.private,
            "ca_file": self.authority.certificate,
        }
        with self.file.open("a") as file:
            file.writelines(f"client_tls_{name} = {value}\n" for name, value in settings.items())

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="keyguard", dbname=name, sslmode="require"
        )


@pytest.mark.campaign("sync-mariadb", "async-postgresql")
@WATCHDOG
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_store_at_a_distance_is_reached_through_tls(
    kind: str, flavour: str, runner: asyncio.Runner, request: pytest.FixtureRequest
) -> None:
    make: Any = TlsMariaDB
    if kind == "postgresql":
        make = partial(TlsPgBouncer, request.getfixturevalue("postgresql"))
    with running(make) as server:
        direct = server.create_database()[0]
        parts = urlsplit(direct)
        if kind == "mariadb":
            link = Link(address(direct))
            options = {"ssl_ca": server.authority.certificate, "ssl_check_hostname": "false"}
        else:
            link = Link(("127.0.0.1", server.port))
            options = {"sslmode": "verify-ca", "sslrootcert": server.authority.certificate}
        place = f"{parts.username}:hunter2@127.0.0.1:{link.port}"
        url = urlunsplit(parts._replace(netloc=place, query=urlencode(options)))
        there = Far(flavour, url, runner)
        there.comes_to(
            lambda seconds: there.call(seconds, lambda s: s.migrate(), there.store), 60.0
        )
        there.call(60.0, lambda store: store.find_key(key().id), there.store)
        there.close()
        link.delay = 0.02
        there = Far(flavour, url, runner)
        for _ in range(3):
            assert there.comes_to(there.find, 0.4) is None
            assert there.comes_to(there.hit, 0.8).admitted
        there.close()
        link.close()
