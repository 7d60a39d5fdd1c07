"""One store, and both example services in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.examples.running import FRAMEWORKS, Service, Store, running


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path_factory.mktemp('aiaas')}/keys.db"
    if request.param == "redis":
        url, _ = request.getfixturevalue("redis").create_database()
    made = Store(url)
    with made.guard:
        yield made


@pytest.fixture(scope="module")
def services(store: Store) -> Iterator[dict[str, Service]]:
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        # the tests make more wrong requests from one address than a client may
        environment.setenv("KEYGUARD_FAILURE_LIMIT", "none")
        environment.setenv("KEYGUARD_STORE_TIMEOUT", "60")  # a busy machine is no outage
        environment.setenv("KEYGUARD_LIMITER_TIMEOUT", "10")
        yield {name: stack.enter_context(running(name, store.url)) for name in FRAMEWORKS}


@pytest.fixture(params=FRAMEWORKS)
def service(services: dict[str, Service], request: pytest.FixtureRequest) -> Service:
    return services[request.param]
