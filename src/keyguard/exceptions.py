"""All exceptions that keyguard raises, under one root.

    KeyguardError
    ├── ConfigurationError          the service is set up wrong; nothing is let through
    │   └── MissingExtraError       an optional dependency is not installed
    ├── InvalidValueError           an argument is not valid (also a ValueError)
    ├── NotFoundError               no such organization or key (also a LookupError)
    ├── RefusedError                the call is valid, but the present state forbids it
    │   ├── ExceededError           nobody may have that much there, or the actor may not
    │   └── OutdatedError           the record has changed since the caller read it
    ├── StoreError                the key store failed
    │   ├── StoreUnavailableError it is down, slow, or overloaded
    │   │   └── HashTimeoutError    a slow hash began, and did not end in time
    │   ├── NotDurableError         it made the change, and a failover could still lose it
    │   ├── SchemaError             its tables are missing, older or newer than keyguard
    │   └── CorruptDataError        it returned data that keyguard never wrote
    └── AccessDenied                a decorator refused this request (in core.access.decisions)

Stores wrap the errors of other libraries, with the original as ``__cause__``. Messages quote what a
caller passed by :func:`shown` and :func:`shown_path` only.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "CorruptDataError",
    "ExceededError",
    "HashTimeoutError",
    "InvalidValueError",
    "KeyguardError",
    "MissingExtraError",
    "NotDurableError",
    "NotFoundError",
    "OutdatedError",
    "RefusedError",
    "SchemaError",
    "StoreError",
    "StoreUnavailableError",
]


class KeyguardError(Exception):
    """The root of all exceptions that keyguard raises."""


class ConfigurationError(KeyguardError):
    """The service is set up wrong; the message says what to change."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is not installed.

    Args:
        what: The feature that needs the dependency, as the subject of a sentence.
        extra: The name of the extra of keyguard that installs it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'keyguard[{extra}]'")


class InvalidValueError(KeyguardError, ValueError):
    """An argument is not valid; keyguard did nothing."""


class NotFoundError(KeyguardError, LookupError):
    """There is no such organization or key."""


class RefusedError(KeyguardError):
    """The call is valid, but the present state forbids it; keyguard did nothing."""


class ExceededError(RefusedError):
    """The call asked for more than the organization or the actor may have."""


class OutdatedError(RefusedError):
    """The record is not the version that the caller has read; read it again."""


class StoreError(KeyguardError):
    """The key store failed; the message says what to do."""


class StoreUnavailableError(StoreError):
    """The key store is down, slow or overloaded; the same call may succeed later."""


class HashTimeoutError(StoreUnavailableError):
    """A slow hash began, and did not end in time."""


class NotDurableError(StoreError):
    """The key store made the change, but too few replicas have it (``durable_replicas``).

    The change is in force. A failover at this moment would lose it. A key that was to be issued
    exists, and nobody has its token.
    """


class SchemaError(StoreError):
    """The key store's tables are missing, older or newer than this version of keyguard."""


class CorruptDataError(StoreError):
    """The key store returned data that keyguard never wrote."""


_LONGEST_SHOWN = 40


def shown(value: object) -> str:
    """Return a value for the message of an error.

    A long text is not shown, not even in part: a token may have been passed by mistake. Neither is
    a URL, which may hold a password.
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__}"
    if len(text) <= _LONGEST_SHOWN and "://" not in text:
        return text
    if isinstance(value, str | bytes):
        return f"a text of {len(value)} characters"
    return f"a {type(value).__name__}"


def shown_path(path: object) -> str:
    """Return the path of a file for the message of an error.

    No token begins with a slash, so an absolute path is shown whatever its length.
    """
    text = str(path)
    return repr(text) if text.startswith("/") else shown(text)
