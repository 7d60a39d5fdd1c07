"""The options that every command takes, and the guard that they describe."""

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

__all__ = [
    "Common",
    "Json",
    "KeyNamed",
    "Limiter",
    "Limits",
    "Networks",
    "PepperFile",
    "Scopes",
    "Url",
    "actor",
    "explain_cause",
    "key_id",
]

LONGEST_STORE_TIMEOUT = 60.0

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the keys are, such as sqlite:///keys.db; else KEYGUARD_URL. A URL with a "
        "password belongs in KEYGUARD_URL: others can read a command line.",
    ),
]
PepperFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pepper-file",
        metavar="PATH",
        help="The file that holds the pepper; else KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE.",
    ),
]
Limits: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        help="What may be asked for, such as 100/minute, or daily=5000/day with a name; may be "
        "repeated.",
    ),
]
Scopes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="What it may do, such as inference:read; may be repeated, or hold several separated "
        "by commas.",
    ),
]
Networks: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="CIDR",
        help="Where it works from, such as 192.0.2.0/24 or 2001:db8::/32; may be repeated.",
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
        help="Where the counters are, if not beside the keys; else KEYGUARD_LIMITER.",
    ),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]

_LONGEST_LOGIN = 150
_TOKEN = re.compile(r"[a-z][a-z0-9_]*_([0-9A-Za-z]{16})_[0-9A-Za-z]{40,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every command is told.

    Args:
        url: Where the keys are, or None where the environment says.
        pepper_file: The file that holds the pepper, or None where the environment says.
        as_json: Whether the answer is one JSON document.
        limiter: Where the counters are, or None for beside the keys.
        given: The guard of the application that the command line is a part of, which knows all
            that; None where it stands alone.
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
        """Return what a command is told after its name, and before it where it is silent.

        Raises:
            ConfigurationError: It is told where keys are, and the application says that.
        """
        before: Common = ctx.obj
        if before.given is not None:
            if any(one is not None for one in (url, before.url, pepper_file, limiter)):
                raise ConfigurationError(
                    "this works on the application's own guard: leave out --url, --pepper-file "
                    "and --limiter"
                )
            return replace(before, as_json=as_json or before.as_json)
        return cls(
            url=_first(url, before.url, os.environ.get("KEYGUARD_URL")),
            pepper_file=pepper_file or before.pepper_file,
            as_json=as_json or before.as_json,
            limiter=_first(limiter, os.environ.get("KEYGUARD_LIMITER") or None),
        )

    def settings(self) -> Settings:
        """Read the settings.

        Raises:
            InvalidValueError: A value is not as said.
            ConfigurationError: The pepper file can't be read, or values do not go together.
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
        settings = Settings.from_env(environ)
        # `key verify` opens its connection first, which a server's look-ups need not wait for.
        patience = min(settings.management_timeout, LONGEST_STORE_TIMEOUT)
        return replace(settings, store_timeout=max(settings.store_timeout, patience))

    @contextmanager
    def guard(self) -> Generator[Keyguard]:
        """Open the guard, and close it after.

        Raises:
            ConfigurationError: No URL is given, or it can't be used, or settings do not fit.
            InvalidValueError: A setting is not as said.
            StoreError: What is done with the guard failed; told with the driver's own words.
        """
        if self.given is not None:
            yield self.given  # which the application closes, and whose URL nobody here knows
            return
        self.require_url()
        with Keyguard(self.url, limiter=self.limiter, settings=self.settings(), hooks=()) as guard:
            try:
                yield guard
            except SchemaError:
                raise  # says all there is to say
            except StoreError as failure:
                raise explain_cause(failure, str(self.url)) from failure

    def require_url(self) -> None:
        """Refuse to go on without a URL.

        Raises:
            ConfigurationError: There is none.
        """
        if self.given is not None:
            raise ConfigurationError(
                "this command works on a URL, not on an application: set KEYGUARD_URL and run it "
                "as 'keyguard'; the application's tables are made by its migrate"
            )
        if not self.url:
            raise ConfigurationError(
                "say where the keys are: set KEYGUARD_URL or pass --url, such as "
                "--url sqlite:///keys.db"
            )


def _first(*given: str | None) -> str | None:
    # An empty one was given, if by mistake: it must not fall through to another store.
    return next((one for one in given if one is not None), None)


def actor() -> str:
    """Return how the audit trail names who runs this command: ``cli:`` and the login name."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user that has no name
        login = ""
    harmless = login.strip() and login.isprintable() and len(login) <= _LONGEST_LOGIN
    return f"cli:{login if harmless else 'unknown'}"


def key_id(text: str) -> str:
    """Return a key's id as it was given.

    Raises:
        InvalidValueError: It is a whole token.
    """
    if found := _TOKEN.fullmatch(text):
        raise InvalidValueError(
            f"that is a whole token, which others can now read; pass the key's id, {found[1]}"
        )
    return text


def explain_cause(failure: StoreError, url: str) -> StoreError:
    """Return a failure told with the driver's own words, where no secret is among them.

    Args:
        failure: What failed.
        url: The store's URL, with its secrets.
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
