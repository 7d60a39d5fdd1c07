"""``keyguard init`` and ``keyguard migrate``: create the tables, a pepper, and newer tables."""

from __future__ import annotations

import os
import secrets
import shlex
from functools import partial
from pathlib import Path

from keyguard.cli.options import HASHED_STORE, STORE, Common, with_options
from keyguard.core.keys.json_forms import JsonObject
from keyguard.core.keys.texts import escaped
from keyguard.exceptions import ConfigurationError, shown_path
from keyguard.settings.sources import read_variable

_PEPPER_SIZE = 32


@with_options(*HASHED_STORE)
def init(common: Common) -> None:
    """Create the tables, and a pepper with --pepper-file.

    If the pepper file does not exist, the command writes a new random pepper to it. It changes no
    tables or pepper that exist, so it is safe to run again.
    """
    url, path = common.store_url(), common.pepper_file
    made = path if path is not None and _make_pepper(path) else None
    try:
        with common.guard() as guard:
            guard.migrate()
            scheme, prefix = guard.settings.token_hasher.scheme, guard.settings.prefix
    except BaseException:
        if made is not None:
            made.unlink()
        raise
    form: JsonObject = {
        "hasher": scheme,
        "pepper_file": None if path is None else str(path.absolute()),
        "pepper_created": made is not None,
    }
    common.show(form, _report(url, path, scheme, prefix, is_new=made is not None))


@with_options(*STORE)
def migrate(common: Common) -> None:
    """Create the tables or bring them up to date.

    It is safe to run at every start, and in several processes at once.
    """
    with common.guard() as guard:
        guard.migrate()
    common.show({"migrated": True}, "The tables are up to date.\n")


def _make_pepper(path: Path) -> bool:
    """Write a new pepper to a file that does not exist, and tell whether it was written."""
    if path.exists():
        return False
    elsewhere = read_variable(os.environ, "KEYGUARD_PEPPER_FILE")
    if os.environ.get("KEYGUARD_PEPPER") or (
        elsewhere and Path(elsewhere).absolute() != path.absolute()
    ):
        raise ConfigurationError(
            "the environment already gives a pepper, so no second one is made: leave out "
            "--pepper-file, or unset KEYGUARD_PEPPER and KEYGUARD_PEPPER_FILE"
        )
    try:
        with open(path, "x", encoding="ascii", opener=partial(os.open, mode=0o600)) as stream:
            try:
                stream.write(f"{secrets.token_hex(_PEPPER_SIZE)}\n")
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                path.unlink()
                raise
    except FileExistsError:
        return False  # another process was faster, or it is a link that leads nowhere
    except OSError as failure:
        raise ConfigurationError(
            f"the pepper file {shown_path(path)} can't be written ({failure.strerror})"
        ) from None
    return True


def _report(url: str, path: Path | None, scheme: str, prefix: str, *, is_new: bool) -> str:
    lines = ["The tables are ready."]
    if is_new:
        lines.append(f"A new pepper is in {path}. Back it up, apart from the database:")
        lines.append("without it, no key works.")
    elif path is not None:
        lines.append(f"The pepper in {path} was not changed.")
    elif scheme == "sha256":
        lines.append(
            "No pepper is set, so tokens are stored under plain SHA-256. To create one, run:"
        )
        lines.append("keyguard init --pepper-file PATH")
    settings: list[str] = []
    if url != read_variable(os.environ, "KEYGUARD_URL"):
        # A URL that may hold a password is not repeated.
        harmless = "@" not in url and "?" not in url
        value = shlex.quote(url) if harmless else "...  # the URL you passed"
        settings.append(f"  export KEYGUARD_URL={value}")
    if path is not None and str(path) != read_variable(os.environ, "KEYGUARD_PEPPER_FILE"):
        settings.append(f"  export KEYGUARD_PEPPER_FILE={shlex.quote(str(path.absolute()))}")
    if settings:
        lines += ["", "Set this for the service and for this command:", "", *settings]
    if not os.environ.get("KEYGUARD_PREFIX") and not os.environ.get("KEYGUARD_SETTINGS"):
        lines += ["", f"This command's tokens will begin with {prefix}. If the service's tokens"]
        lines.append("begin with another prefix, set KEYGUARD_PREFIX to that one.")
    return "".join(f"{escaped(line)}\n" for line in lines)
