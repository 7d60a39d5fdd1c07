"""``keyguard init`` and ``keyguard migrate``: create the tables, a pepper and a settings file."""

from __future__ import annotations

import os
import secrets
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

from keyguard.cli.options import HASHED_STORE, STORE, Common, flag, with_options
from keyguard.cli.settings_file import DEFAULT_URL, settings_path, write_settings
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.texts import escaped
from keyguard.exceptions import ConfigurationError, shown_path
from keyguard.settings.sources import config_file, read_stores, read_variable

_PEPPER_SIZE = 32


@with_options(*HASHED_STORE)
def init(
    common: Common,
    config: bool = flag(
        "--config",
        "Write a commented settings file as well: keyguard.toml, or what KEYGUARD_CONFIG names.",
    ),
) -> None:
    """Create the tables, and on request a pepper and a settings file.

    The pepper is created with --pepper-file, the settings file with --config. If the pepper file
    does not exist, the command writes a new random pepper to it. It changes no tables, pepper or
    settings file that exist, so it is safe to run again.
    """
    made: list[Path] = []
    settings_file = None
    if config:
        common, is_new = _with_settings_file(common)
        settings_file = common.settings_file
        if settings_file is not None and is_new:
            made.append(settings_file)
    path = common.pepper_file
    try:
        url = common.store_url()
        if path is not None and _make_pepper(path):
            made.append(path)
        with common.guard() as guard:
            guard.migrate()
            scheme, prefix = guard.settings.token_hasher.scheme, guard.settings.prefix
    except BaseException:
        for file in made:
            file.unlink()
        raise
    form: JsonObject = {
        "hasher": scheme,
        "pepper_file": None if path is None else str(path.absolute()),
        "pepper_created": path in made,
        "settings_file": None if settings_file is None else str(settings_file.absolute()),
        "settings_created": settings_file in made,
    }
    lines = _report(common, url, scheme, prefix, made)
    common.show(form, "".join(f"{escaped(line)}\n" for line in lines))


def _with_settings_file(common: Common) -> tuple[Common, bool]:
    """Write the settings file unless it exists; return the options with it, and if it is new."""
    path = settings_path()
    url = common.url or DEFAULT_URL
    elsewhere = "KEYGUARD_URL" in os.environ or not _is_harmless(url)
    is_new = write_settings(path, None if elsewhere else url)
    named = read_stores({**os.environ, "KEYGUARD_CONFIG": str(path)})
    return replace(common, settings_file=path, url=common.url or named.url), is_new


@with_options(*STORE)
def migrate(common: Common) -> None:
    """Create the tables or bring them up to date.

    It is safe to run at every start, and in several processes at once.
    """
    with common.guard() as guard:
        guard.migrate()
    common.show({"migrated": True}, "The tables are up to date.\n")


def _make_pepper(path: Path) -> bool:
    """Write a new pepper to a file that does not exist, and return whether it was written."""
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


def _is_harmless(url: str) -> bool:
    """Return whether a URL holds no password."""
    return "@" not in url and "?" not in url


def _report(common: Common, url: str, scheme: str, prefix: str, made: list[Path]) -> list[str]:
    path, file = common.pepper_file, common.settings_file
    lines = ["The tables are ready."]
    if file is not None:
        lines.append(f"The settings in {file} {'are new' if file in made else 'were not changed'}.")
    if path in made:
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
    if file is not None and file != config_file(os.environ):
        settings.append(f"  export KEYGUARD_CONFIG={shlex.quote(str(file.absolute()))}")
    environ = os.environ if file is None else {**os.environ, "KEYGUARD_CONFIG": str(file)}
    if url != read_stores(environ).url:
        # A URL that may hold a password is not repeated.
        value = shlex.quote(url) if _is_harmless(url) else "...  # the URL you passed"
        settings.append(f"  export KEYGUARD_URL={value}")
    if path is not None and str(path) != read_variable(os.environ, "KEYGUARD_PEPPER_FILE"):
        settings.append(f"  export KEYGUARD_PEPPER_FILE={shlex.quote(str(path.absolute()))}")
    if settings:
        lines += ["", "Set this for the service and for this command:", "", *settings]
    if file is None and not os.environ.get("KEYGUARD_PREFIX") and config_file(os.environ) is None:
        lines += ["", f"This command's tokens will begin with {prefix}. If the service's tokens"]
        lines.append("begin with another prefix, set KEYGUARD_PREFIX to that one.")
    return lines
