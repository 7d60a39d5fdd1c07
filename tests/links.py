"""A link to a server that tests can cut, or make long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeAlias

Address: TypeAlias = tuple[str, int] | str
"""A host and a port, or the path of a socket."""


class Link:
    """A port of its own, from which connections lead on to a server.

    Args:
        server: Where the server listens.

    Attributes:
        opened: How many connections were made.
        trips: How often the server answered a client after it had been asked something.
        delay: Seconds that each way takes.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.opened = 0
        self.trips = 0
        self.delay = 0.0
        self._is_cut = False
        self._over = threading.Event()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def cut(self) -> None:
        """End all connections, and let none through until the link is mended."""
        self._is_cut = True
        self._hang_up()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def lead_to(self, server: Address) -> None:
        """Have new connections lead to another server; those that are open stay as they are."""
        self._server = server

    def close(self) -> None:
        """End the link."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()
        for thread in self._threads:
            thread.join()
        with ExitStack() as stack:
            for end in self._ends:
                stack.callback(end.close)

    def _hang_up(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _begin(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # the link was closed
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            family = socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET
            server = socket.socket(family)
            self._ends += [client, server]
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                server.connect(self._server)
                self.opened += 1
            except OSError:
                with suppress(OSError):  # the client may have left
                    client.shutdown(socket.SHUT_RDWR)
                continue
            asked = threading.Event()
            self._begin(self._pass, client, server, asked.set)
            self._begin(self._pass, server, client, lambda asked=asked: self._count(asked))

    def _count(self, asked: threading.Event) -> None:
        if asked.is_set():
            asked.clear()
            self.trips += 1

    def _pass(self, source: socket.socket, sink: socket.socket, note: Callable[[], object]) -> None:
        with suppress(OSError):
            while sent := source.recv(65536):
                note()
                if self.delay:
                    self._over.wait(self.delay)
                sink.sendall(sent)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
