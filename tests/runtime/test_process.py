"""What happens to objects when a process forks, and when it ends."""

from __future__ import annotations

import gc
import os

from keyguard.runtime import process
from keyguard.runtime.process import after_fork, around_fork


class Forked:
    """Notes its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls
        around_fork(self.before, self.in_parent, self.in_child)
        after_fork(self.again)

    def before(self) -> None:
        self.calls.append(f"{self.name} before")

    def in_parent(self) -> None:
        self.calls.append(f"{self.name} in parent")

    def in_child(self) -> None:
        self.calls.append(f"{self.name} in child")

    def again(self) -> None:
        self.calls.append(f"{self.name} again")


def forked(calls: list[str]) -> list[str]:
    """Return what a child noted."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "\n".join(calls).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as noted:
        text = noted.read()
    os.waitpid(child, 0)
    return text.splitlines()


def test_methods_are_called_around_a_fork_in_order() -> None:
    calls: list[str] = []
    first, second = Forked("1", calls), Forked("2", calls)
    in_child = forked(calls)
    before = ["2 before", "1 before"]
    assert in_child == [*before, "1 in child", "1 again", "2 in child", "2 again"]
    assert calls == [*before, "1 in parent", "2 in parent"]
    assert first.name != second.name  # both live until here


def test_an_object_that_is_gone_is_called_no_more() -> None:
    calls: list[str] = []
    known = [len(methods) for methods in (process._before, process._in_parent, process._in_child)]
    gone = Forked("gone", calls)
    del gone
    gc.collect()
    assert forked(calls) == []
    now = [len(methods) for methods in (process._before, process._in_parent, process._in_child)]
    assert now <= known
