"""What is sent to a Redis."""

from __future__ import annotations

from keyguard.stores.redis.scripts import Command


def parts_of(command: Command) -> list[str]:
    """Return the name and the arguments of a command, none of which has a line break of RESP's."""
    return command.decode().split("\r\n")[2::2]
