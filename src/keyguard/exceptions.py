"""Every exception keyguard raises, under one root.

    KeyguardError
    ├── ConfigurationError          the service is set up wrong; nothing is let through
    │   └── MissingExtraError       an optional dependency is not installed
    ├── InvalidValueError           an argument was refused (also a ValueError)
    ├── NotFoundError               no such organization or key (also a LookupError)
    ├── RefusedError                the request is understood, and the state of things forbids it
    ├── StoreError                the key store failed
    │   ├── StoreUnavailableError it is down, slow, or overloaded
    │   │   └── HashTimeoutError    a slow hash was begun, and took too long
    │   ├── SchemaError             its tables are missing, older or newer than keyguard
    │   └── CorruptDataError        it answered something keyguard never wrote
    └── AccessDenied                a decorator refused this request (in sansio.decisions)

Errors of other libraries are wrapped at the store's edge, with the original as ``__cause__``.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "CorruptDataError",
    "HashTimeoutError",
    "InvalidValueError",
    "KeyguardError",
    "MissingExtraError",
    "NotFoundError",
    "RefusedError",
    "SchemaError",
    "StoreError",
    "StoreUnavailableError",
]


class KeyguardError(Exception):
    """The root of every exception keyguard raises."""


class ConfigurationError(KeyguardError):
    """The service is set up wrong; the message says what to change."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is not installed.

    Args:
        what: The feature that needs it, as the subject of a sentence.
        extra: The name of keyguard's extra that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'keyguard[{extra}]'")


class InvalidValueError(KeyguardError, ValueError):
    """An argument was refused; nothing was done."""


class NotFoundError(KeyguardError, LookupError):
    """There is no such organization or key."""


class RefusedError(KeyguardError):
    """The request is understood, and the present state forbids it; nothing was done."""


class StoreError(KeyguardError):
    """The key store failed; the message says what to do."""


class StoreUnavailableError(StoreError):
    """The key store is down, slow or overloaded; the same call may succeed later."""


class HashTimeoutError(StoreUnavailableError):
    """A slow hash was begun, and what comes of it is not known in time."""


class SchemaError(StoreError):
    """The key store's tables are missing, older or newer than this version of keyguard."""


class CorruptDataError(StoreError):
    """The key store answered something that keyguard never wrote."""
