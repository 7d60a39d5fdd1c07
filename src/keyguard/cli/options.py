"""The options that several commands share, and the guard that they describe."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import unquote

import typer

from keyguard.exceptions import (
    ConfigurationError,
    InvalidValueError,
    KeyguardError,
    SchemaError,
    StoreError,
)
from keyguard.guard import Keyguard
from keyguard.settings.settings import Settings

LONGEST_STORE_TIMEOUT = 60.0
"""The longest that a setting may let a store call of a request take, in seconds."""

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The key store, such as sqlite:///keys.db; KEYGUARD_URL by default. Keep a URL with a "
        "password in KEYGUARD_URL, as others can read a command line.",
    ),
]
PepperFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pepper-file",
        metavar="PATH",
        help="The file with the pepper; KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE by default.",
    ),
]
Limits: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        help="How many requests are allowed, such as 100/minute, or daily=5000/day with a name; "
        "may be repeated.",
    ),
]
Scopes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="What the key may do, such as inference:read; may be repeated, or name several "
        "scopes separated by commas.",
    ),
]
Networks: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="CIDR",
        help="From where the key works, such as 192.0.2.0/24 or 2001:db8::/32; may be repeated.",
    ),
]
KeyNamed: TypeAlias = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id.", show_default=False)
]
Limiter: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--limiter",
        metavar="URL",
        help="The store of the counters; KEYGUARD_LIMITER by default, else the key store.",
    ),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]

_LONGEST_LOGIN = 150
_TOKEN = re.compile(r"[a-z][a-z0-9_]*_([0-9A-Za-z]{16})_[0-9A-Za-z]{40,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The options that a command was given.

    Args:
        url: The URL of the key store, or None if no URL is given.
        pepper_file: The file with the pepper, or None to read it as the environment says.
        as_json: Whether the output is one JSON document.
        limiter: The URL of the store of the counters, or None for the key store.
        given: The guard of the application that runs the command line, which is used instead of all
            these; None for the program ``keyguard``.
        application: That application.
    """

    url: str | None = None
    pepper_file: Path | None = None
    as_json: bool = False
    limiter: str | None = None
    given: Keyguard | None = None
    application: object = None

    @classmethod
    def of(
        cls,
        ctx: typer.Context,
        url: str | None,
        as_json: bool,
        pepper_file: Path | None = None,
        limiter: str | None = None,
    ) -> Common:
        """Return the options after a command's name; those before its name are the defaults.

        Raises:
            ConfigurationError: The options name a store, but an application's guard is used.
        """
        before: Common = ctx.obj
        if before.given is not None:
            if any(text is not None for text in (url, before.url, pepper_file, limiter)):
                raise ConfigurationError(
                    "this works on the application's own guard: leave out --url, --pepper-file "
                    "and --limiter"
                )
            return replace(before, as_json=as_json or before.as_json)
        # An empty URL was given, if by mistake, so it must not fall through to another store.
        given = url if url is not None else before.url
        return cls(
            url=os.environ.get("KEYGUARD_URL") if given is None else given,
            pepper_file=pepper_file or before.pepper_file,
            as_json=as_json or before.as_json,
            limiter=os.environ.get("KEYGUARD_LIMITER") or None if limiter is None else limiter,
        )

    def settings(self) -> Settings:
        """Read the settings.

        Raises:
            InvalidValueError: A value of the environment or the settings file is wrong.
            ConfigurationError: A file can't be read, or values contradict each other.
        """
        if self.given is not None:
            return self.given.settings
        environ: Mapping[str, str] = os.environ
        if self.pepper_file is not None:
            environ = {
                **environ,
                "KEYGUARD_PEPPER": "",
                "KEYGUARD_PEPPER_FILE": str(self.pepper_file),
            }
        return Settings.from_env(environ)

    @contextmanager
    def guard(self, *, looks_up: bool = False) -> Generator[Keyguard]:
        """Open the guard for a block, and close it afterwards.

        Args:
            looks_up: Whether the command looks up a token as a request does. It then waits as long
                as for a management operation, since it has to connect first.

        Raises:
            ConfigurationError: No URL is given, it can't be used, or settings contradict each
                other.
            InvalidValueError: A setting is wrong.
            StoreError: The store failed in the block; the message has the driver's own words.
        """
        if self.given is not None:
            yield self.given  # the application closes it
            return
        self.require_url()
        settings = self.settings()
        if looks_up:
            patience = min(settings.management_timeout, LONGEST_STORE_TIMEOUT)
            settings = replace(settings, store_timeout=max(settings.store_timeout, patience))
        with Keyguard(self.url, limiter=self.limiter, settings=settings, hooks=()) as guard:
            try:
                yield guard
            except SchemaError:
                raise  # its message is complete
            except StoreError as failure:
                raise explain_cause(failure, str(self.url)) from failure

    def require_url(self) -> None:
        """Refuse a command that has no URL of a key store.

        Raises:
            ConfigurationError: No URL is given, or the guard is an application's.
        """
        if self.given is not None:
            raise ConfigurationError(
                "this command works on a URL, not on an application: set KEYGUARD_URL and run it "
                "as 'keyguard'; to make the application's tables, run its migrate command"
            )
        if not self.url:
            raise ConfigurationError(
                "no key store is named: set KEYGUARD_URL or pass --url, such as "
                "--url sqlite:///keys.db"
            )


def actor() -> str:
    """Return the actor of the audit trail for this process: ``cli:`` and the login name."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user that has no name
        login = ""
    harmless = login.strip() and login.isprintable() and len(login) <= _LONGEST_LOGIN
    return f"cli:{login if harmless else 'unknown'}"


def argument_id(text: str) -> str:
    """Return an id that was given as an argument.

    Raises:
        InvalidValueError: The argument is a whole token.
    """
    if found := _TOKEN.fullmatch(text):
        raise InvalidValueError(
            "the argument is a whole token, which others can now read; pass the key's id, "
            f"{found[1]}"
        )
    return text


def explain_cause(failure: StoreError, url: str) -> StoreError:
    """Return a store's failure with the driver's own words added, unless they hold a secret.

    Args:
        failure: The failure.
        url: The store's URL, which may hold secrets.
    """
    cause = failure.__cause__
    if cause is None or isinstance(cause, KeyguardError):
        return failure
    own = getattr(cause, "orig", None) or cause  # the driver's, inside SQLAlchemy's
    words = str(own.args[-1] if own.args else own).strip().partition("\n")[0]
    if not words or any(secret in words for secret in _secrets(url)):
        return failure
    return StoreError(f"{failure} ({words})")


def _secrets(url: str) -> Iterator[str]:
    credentials = url.partition("://")[2].rpartition("@")[0]
    options = url.partition("?")[2].split("&")
    for secret in (
        credentials.partition(":")[2],
        *(option.partition("=")[2] for option in options),
    ):
        if secret:
            yield secret
            yield unquote(secret)
