"""What docs/how-to/deployment.md promises of servers and connections."""

from __future__ import annotations

import re

from keyguard.stores.sql.turns import MOST_READS, MOST_WRITES
from tests.examples.pages import page
from tests.servers.running import SERVERS, WAYS

PAGE = page("docs/how-to/deployment.md")


def test_each_option_of_a_command_is_one_that_a_server_of_the_tests_is_started_with() -> None:
    used = {part for server in [*SERVERS, *WAYS] for part in server.command(8000)}
    commands = re.findall(r"^\| .*? \| `(.*)` ", PAGE, re.MULTILINE)
    options = set(re.findall(r"--[a-z][a-z-]+", " ".join(commands)))

    assert len(commands) == 6
    assert options <= used


def test_the_connections_of_a_process_are_those_of_its_pools() -> None:
    assert PAGE.count(f"{MOST_READS} for look-ups, {MOST_WRITES} for changes and limits") == 3
    assert f"let PostgreSQL take {4 * 10 * (MOST_READS + MOST_WRITES + 1)} connections" in PAGE
