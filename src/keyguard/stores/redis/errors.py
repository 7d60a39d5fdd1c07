"""What the errors of redis-py and the server mean to a user of keyguard."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's own
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own
    TryAgainError,
)

from keyguard.exceptions import (
    CorruptDataError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)

__all__ = ["AMID_MIGRATION", "CORRUPT", "UNFIT", "explained", "is_lost"]

AMID_MIGRATION = "1>2"
"""The version of a store while it is brought from the one to the other; nobody else touches it."""

UNFIT = "KEYGUARDSCHEMA"
"""With which a script's error begins where the store was not made by this version of keyguard."""

CORRUPT = "KEYGUARDCORRUPT"
"""With which a script's error begins where it found something that keyguard never wrote."""

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_DOWN = (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OSError,
    RedisClusterException,
    TimeoutError,
    TryAgainError,
)
_REFUSALS = ("NOREPLICAS", "MISCONF", "BUSY", "MASTERDOWN", "LOADING", "UNBLOCKED")
_OLDER = ("1",)
_ADVICE = "run 'keyguard migrate', or call migrate() at start"


def is_lost(failure: BaseException) -> bool:
    """Tell whether the connection broke; a look-up may be asked again on a new one."""
    return (
        isinstance(failure, ConnectionError | OSError)
        and not isinstance(failure, _REFUSED)
        and _in_tls(failure) is None
    )


def explained(failure: BaseException, place: str) -> StoreError:
    """Return the error of keyguard's that says what a failure means, and what to do.

    Args:
        failure: What redis-py raised.
        place: The server's address, without secrets.
    """
    text = str(failure)
    match failure:
        case _ if isinstance(failure, _REFUSED) or "unauthenticated" in text:
            return StoreUnavailableError(
                f"{place} does not let keyguard in, or not do what it must; see the user and "
                "password of the URL, and what the server's ACL allows the user"
            )
        case ReadOnlyError():
            return StoreUnavailableError(
                f"{place} is a replica and can't be written to; name the primary, or use "
                "redis+sentinel://"
            )
        case OutOfMemoryError():
            return StoreUnavailableError(
                f"{place} is out of memory and takes no more; raise its maxmemory"
            )
        case ResponseError() if UNFIT in text:
            return _unfit(text.partition(UNFIT)[2].split()[0], place)
        case ResponseError() if CORRUPT in text or "WRONGTYPE" in text:
            return CorruptDataError(
                f"{place} holds something under keyguard's names that keyguard never wrote; the "
                "cause says what; delete it or restore it from a backup"
            )
        case ResponseError() if text.startswith(_REFUSALS):
            return StoreUnavailableError(
                f"{place} takes no commands or no changes at present; the cause says why"
            )
        case _ if (cause := _in_tls(failure)) is not None:
            return _mistrusted(cause, place)
        case _ if isinstance(failure, _DOWN):
            return StoreUnavailableError(
                f"{place} is down, slow or overloaded; see that it runs and can be reached, then "
                "try again"
            )
        case _:
            return StoreError(
                f"{place} failed in a way that keyguard does not know; the cause says how"
            )


def _in_tls(failure: BaseException) -> ssl.SSLError | None:
    """Return what TLS found wrong, where that is behind a failure."""
    for cause in _causes(failure):
        # That a connection ended amid a record says no more than that it ended.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return cause
    return None


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while failure is not None and id(failure) not in seen:
        seen.add(id(failure))
        yield failure
        failure = failure.__cause__ or failure.__context__


def _mistrusted(cause: ssl.SSLError, place: str) -> StoreUnavailableError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreUnavailableError(
            f"{place} shows a certificate that keyguard does not trust "
            f"({cause.verify_message.rstrip('.')}); name the CA that signed it by ssl_ca_certs, "
            "and the server as its certificate names it"
        )
    return StoreUnavailableError(
        f"{place} and keyguard do not agree on TLS ({cause.reason}); see that the port is the one "
        "for TLS, and what the options that begin with ssl_ say"
    )


def _unfit(found: str, place: str) -> SchemaError:
    if found == "none":
        return SchemaError(f"{place} has no keyguard store yet, or lost it; {_ADVICE}")
    if found == AMID_MIGRATION:
        return SchemaError(
            f"{place} holds a keyguard store that is being brought up to date; try again soon. If "
            f"nobody is at it, {_ADVICE}"
        )
    if found in _OLDER:
        return SchemaError(
            f"{place} holds a keyguard store of version {found!r}, which is older than this "
            f"keyguard; {_ADVICE}"
        )
    return SchemaError(
        f"{place} holds a keyguard store of version {found!r}, which this keyguard does not know; "
        "use the version of keyguard that wrote it"
    )
