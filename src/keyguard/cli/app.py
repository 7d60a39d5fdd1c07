"""The program: its commands, and how each error becomes one sentence and an exit code."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from keyguard.cli import console, key, organization, output, pepper, request, setup
from keyguard.cli.audit import audit
from keyguard.cli.doctor import doctor
from keyguard.cli.explain import explain
from keyguard.cli.hints import hints
from keyguard.cli.options import HASHED_STORE, Common, with_options
from keyguard.cli.purge import purge
from keyguard.cli.routes import routes
from keyguard.cli.usage import usage
from keyguard.exceptions import (
    ConfigurationError,
    InvalidValueError,
    KeyguardError,
    NotDurableError,
    NotFoundError,
    shown,
)
from keyguard.guard import Keyguard
from keyguard.runtime.loading import origin_of
from keyguard.settings.sources import STORE_VARIABLES, read_stores

# In Typer's messages: a long word may be a token of any service, and a URL may hold a password.
_SECRET = re.compile(r"[^\s'\"()]*://.*|[^\s'\"()]{41,}", re.DOTALL)
# Typer's words differ from version to version.
_NO_NUMBER = re.compile(r"Invalid value for '(?P<option>--[\w-]+)'.* valid integer", re.DOTALL)
# What every usage error is: TyperException since Typer 0.27, ClickException before.
_Problem: type[Exception] = typer.BadParameter.__mro__[2]
DONE, REFUSED, USAGE, NOT_DURABLE, INTERRUPTED = 0, 1, 2, 3, 130


class _Program(TyperGroup):
    """The program's commands. The help of Typer 0.26 would list hidden ones, too."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands that are not hidden, in their order."""
        return [name for name in super().list_commands(ctx) if not self.commands[name].hidden]


app = typer.Typer(
    name="keyguard",
    cls=_Program,
    help="Manage the API keys of a service.",
    epilog="Exit codes: 0 done; 1 refused, not found or failed; 2 wrong usage or settings; "
    "3 done, but on too few replicas.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(setup.init)
app.command("migrate")(setup.migrate)
app.command("doctor")(doctor)
app.add_typer(organization.app, name="org")
app.add_typer(key.app, name="key")
app.add_typer(request.app, name="request")
app.command("audit")(audit)
app.command("purge")(purge)
app.command("usage")(usage)
app.command("hints")(hints)
app.command("routes")(routes)
app.command("explain")(explain)
app.add_typer(pepper.app, name="pepper")
app.add_typer(console.app, name="console")


def _show_version(wanted: bool) -> None:
    if wanted:
        from keyguard import __version__  # takes longer than the rest of the program

        output.emit(f"keyguard {__version__}\n")
        raise typer.Exit


@app.callback()
@with_options(*HASHED_STORE)
def _common(
    _: Common,
    show_version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Print the version and exit.",
    ),
) -> None:
    pass


def run(
    arguments: Sequence[str],
    *,
    name: str = "keyguard",
    guard: Keyguard | None = None,
    application: object = None,
) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after the program's name.
        name: The program's name.
        guard: The guard to use; by default the one that options and environment describe.
        application: The application of that guard, for ``routes`` and ``explain``.

    Returns:
        The exit code: 0 done; 1 refused, not found or failed; 2 wrong usage or settings; 3
        done, but on too few replicas; 130 interrupted.
    """
    # The log of a library would mix with the output, or show a traceback.
    logging.basicConfig(handlers=[logging.NullHandler()])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_encoding(arguments)
        if guard is None:
            common = Common()
            environ = dict(os.environ)
            if "--config" in arguments and not Path(environ.get("KEYGUARD_CONFIG") or ".").exists():
                del environ["KEYGUARD_CONFIG"]  # keyguard init is about to write the file
            if not STORE_VARIABLES.isdisjoint(environ):
                common = Common(**read_stores(environ)._asdict())
        else:
            common = Common(given=guard, application=application)
        program = get_group(app)
        for needing_a_url in ("init", "doctor"):  # a guard does not tell the URL of its store
            program.commands[needing_a_url].hidden = guard is not None
        status = program(arguments, prog_name=name, standalone_mode=False, obj=common)
    except _Problem as problem:
        _explain(problem)
        return USAGE
    except (ConfigurationError, InvalidValueError) as problem:
        output.complain(str(problem))
        return USAGE
    except NotDurableError as problem:
        output.complain(str(problem))
        return NOT_DURABLE
    except KeyguardError as problem:
        words = str(problem).replace("use force", "use --force")
        if isinstance(problem, NotFoundError) and words.startswith("there is no organization "):
            words += f"; {name} org list shows all"
        output.complain(words)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as problem:
        output.complain(f"the output could not be written ({problem.strerror})")
        return REFUSED
    except Exception as problem:  # noqa: BLE001 - users see one sentence, no traceback
        output.complain(
            f"unexpected {origin_of(problem)}; this is a bug of keyguard, please report it"
        )
        return REFUSED
    return status if isinstance(status, int) else DONE


def _check_encoding(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(f"the argument {shown(argument)} is not valid UTF-8") from None


def _explain(problem: Any) -> None:
    message = problem.format_message()
    if message.startswith("Usage:"):  # the help, for a group without a command
        output.note(message)
        return
    context: typer.Context | None = getattr(problem, "ctx", None)
    words = _SECRET.sub("***", message).rstrip(".")
    advice = ""
    if context is not None:
        advice = f"{' See' if words.endswith('?') else '; see'} {context.command_path} --help"
    if found := _NO_NUMBER.match(words):
        words = f"{found['option']} takes a whole number"
    output.complain(words[:1].lower() + words[1:] + advice)
