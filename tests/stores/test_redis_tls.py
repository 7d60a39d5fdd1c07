"""Redis through TLS: keyguard checks a server's certificate before it sends anything."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyguard.exceptions import StoreUnavailableError
from keyguard.stores.base import News
from tests.services import Missing, RedisServer, free_port, running
from tests.stores.conftest import Awaited, Plain, bounded, opened
from tests.stores.records import key, organization, record
from tests.stores.test_redis import close_client
from tests.stores.test_redis_feed import started, while_reading

WATCHDOG = pytest.mark.timeout(60, func_only=True)
EXTENSIONS = """
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """Signs certificates, by the command line of OpenSSL.

    Args:
        folder: Where they are kept.
        name: Its name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            raise Missing("no OpenSSL here: install openssl")
        folder.mkdir(parents=True)
        self.folder = folder
        (folder / "extensions").write_text(EXTENSIONS)
        self._request(name)
        self._sign(name, "ca", "-signkey", f"{name}.key")
        self.certificate = folder / f"{name}.crt"
        self.name = name

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for ``localhost``, and of its key."""
        self._request(name)
        signed_by = ("-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key", "-CAcreateserial")
        self._sign(name, "server", *signed_by)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _request(self, name: str) -> None:
        self._run(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        (self.folder / f"{name}.key").chmod(0o644)

    def _sign(self, name: str, section: str, *options: str) -> None:
        self._run(
            *("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-out", f"{name}.crt"),
            *("-extfile", "extensions", "-extensions", section, *options),
        )

    def _run(self, *command: str) -> None:
        subprocess.run(["openssl", *command], check=True, cwd=self.folder, capture_output=True)


class TlsServer(RedisServer):
    """A Redis that is also reached through TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.folder.chmod(0o755)
        self.authority = Authority(self.folder / "authority", "ca")
        self.stranger = Authority(self.folder / "stranger", "stranger")
        certificate, private = self.authority.issue("server")
        self.tls_port = free_port()
        self.options |= {
            "tls-port": str(self.tls_port),
            "tls-cert-file": str(certificate),
            "tls-key-file": str(private),
            "tls-ca-cert-file": str(self.authority.certificate),
            "tls-auth-clients": "no",
        }

    def secured(self, host: str = "localhost", **options: Any) -> str:
        """Return the URL through TLS."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://{host}:{self.tls_port}/0?{query}"


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsServer]:
    with running(TlsServer) as server:
        yield server


def find(store: Any) -> Any:
    return store.find_key(key().id)


def filled(tls: TlsServer, flavour: str, runner: asyncio.Runner) -> Plain | Awaited:
    tls.flush()
    store = opened(flavour, tls.secured(ssl_ca_certs=tls.authority.certificate), runner)
    store.migrate()
    store.add_organization(organization())
    store.add_key(record())
    return store


def test_a_server_whose_certificate_is_trusted_is_spoken_to(
    tls: TlsServer, flavour: str, runner: asyncio.Runner
) -> None:
    store = filled(tls, flavour, runner)
    for _ in range(3):
        assert find(store) == record()
    store.close()


@pytest.mark.parametrize(
    ("host", "trusts", "says"),
    [
        ("localhost", None, "unable to get local issuer|self-signed"),
        ("localhost", "stranger", "unable to get local issuer|self-signed"),
        ("127.0.0.1", "authority", "is not valid for '127.0.0.1'"),
    ],
)
@WATCHDOG
def test_a_server_whose_certificate_is_not_trusted_is_refused_in_clear_words(
    tls: TlsServer,
    host: str,
    trusts: str | None,
    says: str,
    flavour: str,
    runner: asyncio.Runner,
) -> None:
    options = {} if trusts is None else {"ssl_ca_certs": getattr(tls, trusts).certificate}
    store = opened(flavour, tls.secured(host, **options), runner)
    for call in (find, lambda store: store.migrate()):
        with pytest.raises(StoreUnavailableError, match="certificate") as raised:
            call(store)
        raised.match(says)
        raised.match("ssl_ca_certs")
    feed = store.feed()
    with pytest.raises(StoreUnavailableError, match="certificate"):
        feed.read(None, 0.1)
    feed.close()
    store.close()


@WATCHDOG
def test_a_server_without_tls_is_told_from_one_that_is_down(
    tls: TlsServer, flavour: str, runner: asyncio.Runner
) -> None:
    store = opened(flavour, f"rediss://localhost:{tls.port}/0", runner)
    with pytest.raises(StoreUnavailableError, match=r"TLS|slow|late"):
        bounded(store, find)
    store.close()


def test_verification_is_skipped_only_if_the_url_says_so(
    tls: TlsServer, flavour: str, runner: asyncio.Runner
) -> None:
    filled(tls, flavour, runner).close()
    store = opened(flavour, tls.secured("127.0.0.1", ssl_cert_reqs="none"), runner)
    assert find(store) == record()
    store.close()


@pytest.mark.campaign("sync-localhost", "async-127.0.0.1")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_client_is_used_with_what_it_trusts(
    tls: TlsServer, host: str, flavour: str, runner: asyncio.Runner
) -> None:
    import redis as redis_py

    filled(tls, flavour, runner).close()
    module: Any = redis_py if flavour == "sync" else redis_py.asyncio
    client = module.Redis(
        host=host,
        port=tls.tls_port,
        ssl=True,
        ssl_ca_certs=str(tls.authority.certificate),
        ssl_check_hostname=True,
    )
    store = opened(flavour, client, runner)
    if host == "localhost":
        assert find(store) == record()
    else:
        with pytest.raises(StoreUnavailableError, match="is not valid for"):
            find(store)
    store.close()
    close_client(client, runner)


@pytest.mark.campaign("sync")
@WATCHDOG
def test_a_server_that_is_silent_is_given_up_in_time(
    tls: TlsServer, flavour: str, runner: asyncio.Runner
) -> None:
    store = filled(tls, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position
    with tls.suspended():
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                bounded(store, find)
            with pytest.raises(StoreUnavailableError):
                feed.read(position, 0.01)
    assert find(store) == record()
    assert feed.read(position, 0) == News(position, ())
    feed.close()
    store.close()


@WATCHDOG
def test_a_reader_waits_and_is_ended_through_tls_too(
    tls: TlsServer, flavour: str, runner: asyncio.Runner
) -> None:
    store = filled(tls, flavour, runner)
    feed = store.feed()
    position = feed.read(None, 0).position

    def change() -> None:
        started(tls)
        tls.call("XADD", "keyguard:{store}:audit", "*", "subject", "somebody")

    told = while_reading(feed, position, change)
    assert told.subjects == ("somebody",)
    if isinstance(feed, Plain | Awaited):
        feed.close()
    else:

        def close() -> None:
            started(tls)
            feed.close()

        with pytest.raises(StoreUnavailableError, match="was closed"):
            while_reading(feed, told.position, close)
    store.close()


@WATCHDOG
def test_closing_ends_a_read_that_is_under_way(tls: TlsServer, runner: asyncio.Runner) -> None:
    store = filled(tls, "sync", runner)
    feed = store.feed()
    position = feed.read(None, 0).position

    def act() -> None:
        started(tls)
        feed.close()

    with pytest.raises(StoreUnavailableError, match="was closed"):
        while_reading(feed, position, act)
    store.close()
