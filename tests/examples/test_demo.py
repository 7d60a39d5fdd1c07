"""``python -m examples.demo``, as ``make demo`` starts it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.examples.running import FRAMEWORKS, curl
from tests.services import free_port

ROOT = Path(__file__).parents[2]
LAST_LINE = "Ctrl-C ends the demo."
TOKEN = re.compile(r"\baiaas_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\b")


def environment(**changes: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KEYGUARD_") and name not in ("FRAMEWORK", "PORT")
    }
    return kept | {"PYTHONPATH": str(ROOT)} | changes


def command() -> list[str]:
    return [sys.executable, "-W", "error", "-m", "examples.demo"]


@dataclass
class Demo:
    process: subprocess.Popen[str]
    printed: str

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands to paste, each with the comment above it."""
        return re.findall(r"^# (.*)\n(\S.*)$", self.printed, re.MULTILINE)

    def interrupt(self) -> tuple[int, str, str]:
        for patience in (20, 40):  # a person who sees nothing happen presses Ctrl-C again
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                break
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def started(folder: Path, **changes: str) -> Iterator[Demo]:
    """Start the demo, and wait until it has printed everything. Then it listens."""
    process = subprocess.Popen(
        command(), cwd=folder, env=environment(**changes), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.strip() == LAST_LINE:
                break
        try:
            yield Demo(process, "".join(lines))
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=60)


def refused(folder: Path, **changes: str) -> str:
    """Run a demo that does not start, and return what it prints."""
    done = subprocess.run(
        command(), cwd=folder, env=environment(**changes), check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert list(folder.iterdir()) == [], "something was created"
    assert done.stderr.startswith("demo: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("demo: ").strip()


@pytest.mark.campaign("starlette")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_printed_commands_answer_as_printed(tmp_path: Path, framework: str) -> None:
    curl()
    changes = {
        "FRAMEWORK": framework,
        "PORT": str(free_port()),
        "KEYGUARD_MAX_STALENESS": "0",
    }
    with started(tmp_path, **changes) as demo:

        def paste(line: str) -> str:
            return subprocess.run(
                ["sh", "-c", line], cwd=tmp_path, env=environment(COLUMNS="120"),
                capture_output=True, text=True, check=True, timeout=60,
            ).stdout  # fmt: skip

        field, answers = "\nkeyguard-key-expires: ", dict[str, str]()
        for comment, line in demo.commands():
            if line.startswith("sleep "):
                continue  # this demo looks each key up, so there is nothing to wait for
            name, _, _ = comment.partition(":")
            answers[name] = answer = paste(line)
            if name.isdigit():
                assert line.startswith(("curl ", "for i in "))
                assert answer.startswith(f"HTTP/1.1 {name} "), comment
                over = "Rate limit exceeded: inference (60 in 60 seconds)" in answer
                assert over == (name == "429")
                assert (field in answer.lower()) == ("Keyguard-Key-Expires" in comment)
        assert answers.keys() > {"200", "401", "403", "422", "429", "revokes the reader"}

        new = answers["rotates the writer"].strip()
        assert TOKEN.fullmatch(new)
        reading = next(line for comment, line in demo.commands() if "reader may read" in comment)
        renewed = paste(TOKEN.sub(new, reading))
        assert renewed.startswith("HTTP/1.1 200 ")
        assert field not in renewed.lower()

        said = answers["shows who changed what"]
        assert re.search(r"^When +Who +What +Which +Change$", said, re.MULTILINE)
        assert re.search(r" demo +revoked +\w{16} +unspecified: to see it", said)

        status, _, logged = demo.interrupt()

    assert status == 0
    assert "refused: scope_missing" in logged
    assert "refused: key_revoked" in logged
    assert not TOKEN.search(logged)
    assert "Traceback" not in logged
    assert "development server" not in logged


@pytest.mark.campaign("starlette")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_ends_with_ctrl_c_and_can_be_started_again(tmp_path: Path, framework: str) -> None:
    tokens = []
    for _ in range(2):
        with started(tmp_path, FRAMEWORK=framework, PORT=str(free_port())) as demo:
            tokens.append(set(TOKEN.findall(demo.printed)))
            status, said, logged = demo.interrupt()
        assert (status, said.strip(), logged) == (0, "The demo has ended.", "")

    assert not tokens[0] & tokens[1]


@pytest.mark.campaign("flask")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_links_lead_to_the_console(tmp_path: Path, framework: str) -> None:
    with started(tmp_path, FRAMEWORK=framework, PORT=str(free_port())) as demo:
        links = re.findall(r"^http://localhost:(\d+)(/keys/sign-in/\S+)$", demo.printed, re.M)
        for port, path in links:
            with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)) as to:
                to.request("GET", path, headers={"Host": f"localhost:{port}"})
                answer = to.getresponse()
                assert answer.status == 200
                assert b"This link signs you in once." in answer.read()

    assert len(links) == 2


def test_it_starts_again_on_the_same_port(tmp_path: Path) -> None:
    port = str(free_port())
    for _ in range(2):
        with started(tmp_path, PORT=port) as demo:
            assert demo.interrupt()[0] == 0


def test_each_key_is_listed_once_and_nothing_but_commands_is_wider_than_80_columns(
    tmp_path: Path,
) -> None:
    with started(tmp_path, PORT=str(free_port())) as demo:
        demo.interrupt()

    alone = [line for line in demo.printed.splitlines() if TOKEN.fullmatch(line)]
    assert len(alone) == len(set(alone)) == 5
    assert set(TOKEN.findall(demo.printed)) == set(alone)
    pasted = {line for _, line in demo.commands()}
    assert all(len(line) <= 80 for line in demo.printed.splitlines() if line not in pasted)


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]

        said = refused(tmp_path, PORT=str(port))

    assert said.startswith(f"port {port} of 127.0.0.1 is taken;")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80 80", "\uff11", "8000.0"])
def test_an_invalid_port_is_one_sentence(tmp_path: Path, port: str) -> None:
    assert refused(tmp_path, PORT=port) == f"PORT is a number from 1 to 65535, not {port!r}"


@pytest.mark.parametrize("framework", ["django", "Flask", "starlette "])
def test_an_unknown_framework_is_one_sentence(tmp_path: Path, framework: str) -> None:
    said = refused(tmp_path, FRAMEWORK=framework)

    assert said == f"FRAMEWORK is starlette or flask, not {framework!r}"


def test_an_invalid_setting_is_one_sentence(tmp_path: Path) -> None:
    assert "KEYGUARD_MAX_STALENESS" in refused(tmp_path, KEYGUARD_MAX_STALENESS="soon")
