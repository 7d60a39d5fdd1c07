"""Every error is one sentence, with its exit code, and without a traceback."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keyguard import Keyguard
from keyguard.cli import app, organization
from tests.cli.conftest import PROGRAM, Program, Run, Store
from tests.services import RedisPair, running


def test_without_a_url_nothing_is_done(keyguard: Program) -> None:
    for command in (("init",), ("migrate",), ("org", "list"), ("key", "verify")):
        done = keyguard(*command)
        assert done.status == 2
        assert "set KEYGUARD_URL or pass --url" in done.sentence


def test_a_url_may_come_before_or_after_the_command(keyguard: Program, store: Store) -> None:
    wrong = "sqlite:///missing/keys.db"

    assert keyguard("--url", store.url, "org", "list").status == 0
    assert keyguard("org", "list", "--url", store.url).status == 0
    assert keyguard("--url", wrong, "org", "list").status == 2
    assert keyguard("--url", wrong, "org", "list", "--url", store.url).status == 0


def test_json_may_be_asked_for_before_the_command(keyguard: Program, store: Store) -> None:
    assert keyguard("--json", "org", "list").json["next"] is None


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "hunter2",
        "foo://u:hunter2@host/db",
        "postgresql://u:hunter2@host:port/db",
        "sqlite:///missing/keys.db",
        "memory://hunter2",
    ],
)
def test_a_url_that_can_not_be_used_is_wrong_usage_and_shows_no_password(
    url: str, keyguard: Program
) -> None:
    done = keyguard("org", "list", "--url", url)

    assert done.status == 2
    assert "hunter2" not in done.sentence


@pytest.mark.parametrize(
    "command",
    [
        ("init", "--config", "--pepper-file", "pepper.txt"),
        ("org", "create", "acme"),
        ("key", "verify"),
        ("console",),
    ],
)
def test_a_store_that_ends_with_the_command_is_refused(
    keyguard: Program, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = keyguard(*command, "--url", "memory://")

    assert done.status == 2
    assert done.sentence.startswith("memory:// lasts only as long as this command: name a store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_can_not_be_reached_is_a_failure_that_says_why(
    scheme: str, keyguard: Program
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        done = keyguard(
            "org", "create", "acme", "--url", f"{scheme}://u:hunter2@127.0.0.1:{port}/x"
        )

    assert done.status == 1
    assert "Connection refused" in done.sentence
    assert "hunter2" not in done.sentence


def test_a_cause_that_repeats_a_secret_of_the_url_is_left_out(keyguard: Program) -> None:
    told = keyguard("org", "list", "--url", "postgresql://u@127.0.0.1:1/x?sslmode=require")
    hidden = keyguard("org", "list", "--url", "postgresql://u@127.0.0.1:1/x?sslmode=frob")

    assert (told.status, hidden.status) == (1, 1)
    assert "Connection refused" in told.sentence
    assert "frob" not in hidden.sentence


@pytest.mark.parametrize(
    "command",
    [
        ("key", "list"),
        ("key", "create", "--org", "acme", "--name", "ci"),
        ("org", "create", "acme", "--name", "Acme"),
        ("hints",),
    ],
)
def test_a_file_that_does_not_exist_is_named_and_not_made(
    keyguard: Program, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = keyguard(*command, "--url", "sqlite:///typo.db")

    assert done.status == 1
    assert done.sentence == (
        f"there is no file '{tmp_path}/typo.db': check the URL, or run `keyguard init` or "
        "guard.migrate() to make a new store"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_a_failure(keyguard: Program, tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_text("hello" * 1000)

    done = keyguard("org", "list", "--url", "sqlite:///keys.db")

    assert done.status == 1
    assert "file is not a database" in done.sentence


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("KEYGUARD_CACHE_SIZE", "lots", "KEYGUARD_CACHE_SIZE takes a whole number"),
        ("KEYGUARD_PREFIX", "Kg", "'Kg' is not a valid token prefix"),
        ("KEYGUARD_PEPPER", "short", "a pepper takes at least 32 random bytes"),
        (
            "KEYGUARD_PEPPER_FILE",
            "missing",
            "the pepper file 'missing' can't be read (FileNotFoundError); this folder is '",
        ),
        ("KEYGUARD_HASHER", "md5", "unknown hasher 'md5'"),
    ],
)
def test_a_setting_that_can_not_be_read_is_wrong_usage(
    name: str,
    value: str,
    words: str,
    keyguard: Program,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)

    done = keyguard("org", "create", "beta")

    assert done.status == 2
    assert words in done.sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("frob",), "no such command 'frob'; see keyguard --help"),
        (("--frob",), "no such option: --frob; see keyguard --help"),
        (("key", "show"), "missing argument 'KEY'; see keyguard key show --help"),
        (
            ("key", "create", "--org", "acme"),
            "missing option '--name'; see keyguard key create --help",
        ),
        (("org", "list", "--url"), "option '--url' requires an argument"),
        (
            ("key", "list", "--limit", "many"),
            "--limit takes a whole number; see keyguard key list --help",
        ),
        (("kay", "list"), "no such command 'kay'. Did you mean 'key'? See keyguard --help"),
        (("key\x1b[2J",), r"no such command 'key\x1b[2J'"),
    ],
)
def test_wrong_usage_is_one_sentence_that_says_where_to_look(
    arguments: tuple[str, ...], sentence: str, keyguard: Program, store: Store
) -> None:
    done = keyguard(*arguments)

    assert done.status == 2
    assert done.sentence.startswith(sentence)


@pytest.mark.parametrize("group", [(), ("org",), ("key",)])
def test_a_group_without_a_command_shows_its_help(
    group: tuple[str, ...], keyguard: Program
) -> None:
    done = keyguard(*group)

    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: {' '.join(('keyguard', *group))} [OPTIONS] COMMAND")


def test_help_needs_no_settings(keyguard: Program) -> None:
    done = keyguard("key", "create", "--help")

    assert (done.status, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_is_that_of_the_package(keyguard: Program) -> None:
    assert re.fullmatch(r"keyguard \d+\.\d+\.\d+\S*\n", keyguard("--version").stdout)


def test_a_bug_of_keyguard_is_a_sentence_without_its_words(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr(organization, "_show", broken)

    done = keyguard("org", "disable", "acme")

    assert done.status == 1
    assert re.fullmatch(
        r"unexpected ZeroDivisionError at test_errors\.py:\d+; this is a bug of keyguard, "
        "please report it",
        done.sentence,
    )


def test_an_interrupt_is_quiet(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(organization, "_show", interrupted)
    assert keyguard("org", "disable", "acme") == Run(130, "", "")

    monkeypatch.setattr(app, "_check_encoding", interrupted)
    assert keyguard("org", "disable", "acme") == Run(130, "", "")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_sentence_says_what_to_install(
    missing: str, process: Callable[..., Run]
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from keyguard.cli import main; main()"

    done = process("--help", program=(sys.executable, "-c", code))

    assert done == Run(
        2, "", "The command line needs the extra 'cli': pip install 'keyguard[cli]'\n"
    )


def test_another_missing_module_is_not_taken_for_the_extra(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyguard.cli.app", None)

    with pytest.raises(ImportError):
        keyguard("--help")


def test_an_interrupt_while_it_starts_is_quiet(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def find_spec(self, *arguments: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "keyguard.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])

    assert keyguard("--help") == Run(130, "", "")


def test_the_program_is_installed_as_keyguard(process: Callable[..., Run], store: Store) -> None:
    program = Path(sys.executable).with_name("keyguard")

    assert process("org", "list", "--json", program=(str(program),)).json["next"] is None


def test_a_process_that_fails_leaves_one_sentence_and_its_code(
    process: Callable[..., Run], store: Store
) -> None:
    refused = process("key", "create", "--org", "nope", "--name", "ci")
    misused = process("key", "create", "--org", "acme", "--name", "ci", "--expires-in", "soon")

    assert (refused.status, refused.sentence) == (
        1,
        "there is no organization 'nope'; keyguard org list shows all",
    )
    assert misused.status == 2
    assert "takes a length of time" in misused.sentence
    assert store.keys() == ()


def test_a_reader_that_closes_the_pipe_early_gets_no_error(
    process: Callable[..., Run], store: Store
) -> None:
    gone = f"import os; r, w = os.pipe(); os.dup2(w, 1); os.close(r); {PROGRAM[2]}"

    assert process("org", "list", program=(sys.executable, "-c", gone)) == Run(1, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
def test_output_that_can_not_be_written_is_one_sentence(
    process: Callable[..., Run], store: Store
) -> None:
    full = f"import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); {PROGRAM[2]}"

    done = process("org", "list", program=(sys.executable, "-c", full))

    assert done.status == 1
    assert done.sentence == "the output could not be written (No space left on device)"


def test_a_closed_stdout_is_one_sentence(process: Callable[..., Run], store: Store) -> None:
    closed = f"import os, sys; os.close(1); sys.stdout = None; {PROGRAM[2]}"

    done = process("org", "list", program=(sys.executable, "-c", closed))

    assert done.status == 1
    assert done.sentence == "the output could not be written (Bad file descriptor)"


def test_a_closed_stderr_changes_nothing_else(process: Callable[..., Run], store: Store) -> None:
    closed = f"import os, sys; os.close(2); sys.stderr = None; {PROGRAM[2]}"
    arguments = ("key", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")

    done = process(*arguments, program=(sys.executable, "-c", closed))

    assert done.status == 0
    assert done.stdout.startswith("kg_live_")


def test_a_stderr_that_nobody_reads_changes_nothing_else(
    process: Callable[..., Run], store: Store
) -> None:
    gone = f"import os; r, w = os.pipe(); os.dup2(w, 2); os.close(r); {PROGRAM[2]}"
    arguments = ("key", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")

    done = process(*arguments, program=(sys.executable, "-c", gone))

    assert done.status == 0
    assert done.stdout.startswith("kg_live_")


def test_a_change_that_is_not_durable_has_an_exit_code_of_its_own(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(RedisPair) as servers:
        with Keyguard(servers.url) as guard:
            guard.migrate()
            guard.organizations.create("acme")
            issued = guard.keys.issue(organization="acme", name="a")
        servers.lose_replica()
        monkeypatch.setenv("KEYGUARD_DURABLE_REPLICAS", "1")
        done = keyguard("key", "revoke", issued.key.id, "--url", servers.url)
        assert done.status == 3
        assert "made the change, but fewer than one replica had it within 1 seconds" in (
            done.sentence
        )
