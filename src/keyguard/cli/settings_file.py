"""The settings file that ``keyguard init --config`` writes, for people to go on from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyguard.exceptions import ConfigurationError, shown_path
from keyguard.settings.sources import config_file

DEFAULT_URL = "sqlite:///keys.db"
"""The key store of the file if nothing names another."""

_TEXT = """\
# Settings of keyguard. Set KEYGUARD_CONFIG to this file's path: for the command line, for
# keyguard.asgi and keyguard.wsgi, and for Settings.from_env(). A variable, such as
# KEYGUARD_REALM, comes before the line here. All settings: docs/reference.md, Settings.
# Peppers are secrets and not for this file: KEYGUARD_PEPPER_FILE names theirs.

# The key store. KEYGUARD_URL comes before it; a URL with a password belongs there.
{url}

# What challenges name, and what every token begins with. Choose before you issue keys.
# realm = "api"
# prefix = "kg_live"

# Exact paths that need no key, such as that of a health check.
# public = ["/healthz"]

# How often each key may call. A key or its organization may have other limits.
# default_limits = ["600/minute"]

# Behind a reverse proxy: the networks of those whose fields about the client count.
# trusted_proxies = ["10.0.0.0/8"]
# require_https = true

# For how many seconds 'keyguard purge' keeps keys that have ended, and entries of the audit trail:
# here 400 and 800 days. Without these lines, both stay for ever.
# keep_ended_keys = 34560000
# keep_audit = 69120000

# The scopes that the service knows. With this table, any other scope is refused as misspelt.
# [catalogue]
# "notes:read" = "Read notes"
# admin = {{ description = "Everything", implies = ["notes:read"] }}

# Rules: what a request needs beside a key. The most specific rule for a path decides, whatever
# the order. The first covers every path that no other rule names, so that one that you did not
# know of, such as /notes.json beside /notes, needs more than any key. Keep it.
[[rules]]
path = "/{{path:path}}"
scopes = ["admin"]

# [[rules]]
# path = "/notes/{{note_id}}"
# methods = ["GET"]
# scopes = ["notes:read"]
# limits = ["60/minute"]

# [[rules]]
# path = "/static/{{path:path}}"
# public = true
"""


def settings_path() -> Path:
    """Return the path of the file: that of ``KEYGUARD_CONFIG``, otherwise one in this folder."""
    return config_file(os.environ) or Path("keyguard.toml")


def write_settings(path: Path, url: str | None) -> bool:
    """Write the file if it does not exist, and return whether it was written.

    Args:
        path: The file.
        url: The URL of the key store, for the file; None to leave it to ``KEYGUARD_URL``.

    Raises:
        ConfigurationError: The file can't be written.
    """
    named = f"{'# ' if url is None else ''}url = {json.dumps(url or DEFAULT_URL)}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEXT.format(url=named))
    except FileExistsError:
        return False
    except OSError as failure:
        raise ConfigurationError(
            f"the settings file {shown_path(path)} can't be written ({failure.strerror})"
        ) from None
    return True
