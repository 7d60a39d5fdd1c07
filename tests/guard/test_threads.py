"""What a guard for sync code says of servers whose threads it can't use."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from keyguard import Keyguard

SERVERS = {
    "--enable-threads": ("uwsgi", SimpleNamespace(has_threads=0)),
    "use workers with threads": (
        "eventlet.patcher",
        SimpleNamespace(is_monkey_patched=lambda module: module == "thread"),
    ),
}


@pytest.mark.parametrize("remedy", SERVERS)
def test_a_guard_warns_of_a_server_whose_threads_it_can_t_use(
    remedy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Keyguard("memory://").close()
    assert not caplog.messages
    name, module = SERVERS[remedy]
    monkeypatch.setitem(sys.modules, name, module)

    Keyguard("memory://").close()

    assert [message for message in caplog.messages if remedy in message.lower()]
