"""The options that several commands share, and the guard that they describe."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import unquote

import typer

from keyguard.cli.output import TOKEN, emit, emit_json
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.texts import fits, settled_text
from keyguard.exceptions import (
    ConfigurationError,
    InvalidValueError,
    KeyguardError,
    NotDurableError,
    SchemaError,
    StoreError,
)
from keyguard.guard import Keyguard
from keyguard.settings.config import Settings

LONGEST_STORE_TIMEOUT = 60.0
"""The longest that a setting may let a store call of a request take, in seconds."""


def option(metavar: str, words: str, *names: str, default: object = None) -> Any:
    """Declare an option with a value; its name is by default that of the parameter."""
    return typer.Option(default, *names, metavar=metavar, help=words)


def flag(name: str, words: str) -> Any:
    """Declare an option without a value."""
    return typer.Option(False, name, help=words)


def argument(metavar: str, words: str) -> Any:
    """Declare an argument that must be given."""
    return typer.Argument(..., metavar=metavar, help=words, show_default=False)


LIMITS = option(
    "LIMIT",
    "How many requests are allowed, such as 100/minute, or daily=5000/day with a name; may be "
    "repeated.",
    "--limit",
)
SCOPES = option(
    "SCOPE",
    "What the key may do, such as inference:read; may be repeated, or name several scopes "
    "separated by commas.",
    "--scope",
)
NETWORKS = option(
    "CIDR",
    "From where the key works, such as 192.0.2.0/24 or 2001:db8::/32; may be repeated.",
    "--network",
)
KEY = argument("KEY", "The key's id.")

STORE = ("url", "as_json")
HASHED_STORE = ("url", "pepper_file", "as_json")
LIST = ("limit", "after", "everything", *STORE)

_LONGEST_LOGIN = 150


def _shared(declared: object, default: object = None) -> Any:
    return field(default=default, metadata={"option": declared})


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The values of the options that commands share, each declared with its help.

    A URL that is empty was given, perhaps by mistake, so it does not fall through to another store.

    Args:
        given: The guard of the application that runs the command line, used instead of a store.
        application: That application.
        settings_file: The settings file that ``init --config`` has written.
        settled: The settings of an application that the command asks about, instead of those of
            the environment.
        command: The command's full name.
        strays: The arguments that the command does not declare.
        is_followed: Whether it is a group, and one of its commands follows.
    """

    limit: int | None = _shared(option("N", "How many to list, 1 to 1000; 100 by default."))
    after: str | None = _shared(option("ID", "List those that come after this one."))
    everything: bool = _shared(flag("--all", "List all of them."), default=False)
    url: str | None = _shared(
        option(
            "URL",
            "The key store, such as sqlite:///keys.db; KEYGUARD_URL by default. Keep a URL with a "
            "password in KEYGUARD_URL, as others can read a command line.",
        )
    )
    pepper_file: Path | None = _shared(  # noqa: RUF009 - it is a field
        option(
            "PATH", "The file with the pepper; KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE by default."
        )
    )
    limiter: str | None = _shared(
        option("URL", "The store of the counters; KEYGUARD_LIMITER by default, else the key store.")
    )
    as_json: bool = _shared(
        flag("--json", "Print one JSON document and nothing else."), default=False
    )
    given: Keyguard | None = None
    application: object = None
    settings_file: Path | None = None
    settled: Settings | None = None
    command: str = ""
    strays: tuple[str, ...] = ()
    is_followed: bool = False

    def show(self, form: JsonObject, text: str) -> None:
        """Write a result to stdout: as JSON if that is asked for, else as text."""
        if self.as_json:
            emit_json(form)
        else:
            emit(text)

    def settings(self) -> Settings:
        """Read the settings from the environment, or take those of the application."""
        if self.given is not None:
            return self.given.settings
        if self.settled is not None:
            return self.settled
        environ: Mapping[str, str] = os.environ
        if self.pepper_file is not None:
            path = str(self.pepper_file)
            environ = {**environ, "KEYGUARD_PEPPER": "", "KEYGUARD_PEPPER_FILE": path}
        if self.settings_file is not None:
            environ = {**environ, "KEYGUARD_CONFIG": str(self.settings_file)}
        return Settings.from_env(environ)

    @property
    def patience(self) -> float:
        """The longest that a command waits for the store, in seconds."""
        return min(self.settings().management_timeout, LONGEST_STORE_TIMEOUT)

    @contextmanager
    def guard(self, *, looks_up: bool = False) -> Generator[Keyguard]:
        """Open the guard for a block, and close it afterwards.

        The error of a store that fails in the block has the driver's own words added.

        Args:
            looks_up: Whether the command looks up a token as a request does. It then waits as long
                as for a management operation, since it has to connect first.
        """
        if self.given is not None:
            yield self.given  # the application closes it
            return
        url, settings = self.store_url(), self.settings()
        if url == "memory://":
            raise ConfigurationError(
                "memory:// lasts only as long as this command: name a store that the service "
                "shares, such as sqlite:///keys.db"
            )
        if looks_up:
            timeout = max(settings.store_timeout, self.patience)
            settings = replace(settings, store_timeout=timeout)
        with Keyguard(url, limiter=self.limiter, settings=settings, hooks=()) as guard:
            try:
                yield guard
            except (NotDurableError, SchemaError):
                raise  # their messages are complete
            except StoreError as failure:
                raise explain_cause(failure, url) from failure

    def store_url(self) -> str:
        """Return the URL of the key store; refuse an application's guard, and a missing URL."""
        if self.given is not None:
            raise ConfigurationError(
                "this command works on a URL, not on an application: set KEYGUARD_URL and run it "
                "as 'keyguard'; to make the application's tables, run its migrate command"
            )
        if not self.url:
            raise ConfigurationError(
                "no key store is named: set KEYGUARD_URL or pass --url, such as "
                "--url sqlite:///keys.db; or run 'keyguard init --config', which writes a file"
            )
        return self.url


_KINDS = get_type_hints(Common)


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add shared options to a command, which takes a :class:`Common` as its first argument.

    The options may stand before the command's name too; those after it win.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(ctx: typer.Context, **values: object) -> None:
            given: dict[str, object] = {}
            for name in names:
                value = values.pop(name)
                if isinstance(value, str | Path):
                    option = "--" + name.replace("_", "-")
                    value = type(value)(settled_text(option, str(value)))
                if value is not None and value is not False:
                    given[name] = value
            common = replace(
                ctx.obj,
                command=ctx.command_path,
                strays=tuple(ctx.args),
                is_followed=ctx.invoked_subcommand is not None,
                **given,
            )
            ctx.obj = common
            if common.given is not None and given.keys() & {"url", "pepper_file", "limiter"}:
                raise ConfigurationError(
                    "this works on the application's own guard: leave out --url, --pepper-file "
                    "and --limiter"
                )
            function(common, **values)

        first, *own = inspect.signature(function, eval_str=True).parameters.values()
        context = first.replace(name="ctx", annotation=typer.Context)
        shared = [
            first.replace(
                name=each.name, annotation=_KINDS[each.name], default=each.metadata["option"]
            )
            for each in fields(Common)
            if each.name in names
        ]
        parameters = [context, *own, *shared]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def login_name() -> str:
    """Return the login name of this process's user, or ``unknown``."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user that has no name
        return "unknown"


def actor() -> str:
    """Return the actor of the audit trail for this process: ``cli:`` and the login name."""
    login = login_name()
    harmless = login.strip() and fits(login) and len(login) <= _LONGEST_LOGIN
    return f"cli:{login if harmless else 'unknown'}"


def argument_id(text: str) -> str:
    """Return an id that was given as an argument; refuse a whole token."""
    if found := TOKEN.fullmatch(text):
        raise InvalidValueError(
            "the argument is a whole token, which others can now read; pass the key's id, "
            f"{found['id']}"
        )
    return text


def explain_cause(failure: StoreError, url: str) -> StoreError:
    """Return a store's failure with the driver's own words added, unless they hold a secret."""
    cause = failure.__cause__
    if cause is None or isinstance(cause, KeyguardError):
        return failure
    own = getattr(cause, "orig", None) or cause  # the driver's, inside SQLAlchemy's
    words = str(own.args[-1] if own.args else own).strip().partition("\n")[0]
    if not words or words in str(failure) or any(secret in words for secret in _secrets(url)):
        return failure
    return StoreError(f"{failure} ({words})")


def _secrets(url: str) -> Iterator[str]:
    rest = url.partition("://")[2]
    before = (rest.partition("@")[0], rest.rpartition("@")[0])  # the value of an option may hold @
    passwords = [userinfo.partition(":")[2] for userinfo in before]
    values = [option.partition("=")[2] for option in url.partition("?")[2].split("&")]
    for secret in filter(None, (*passwords, *values)):
        yield secret
        yield unquote(secret)
