"""What the errors of redis-py and the server mean to a user of keyguard."""

from __future__ import annotations

import re
import ssl

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterError,
    ConnectionError,  # noqa: A004 - redis-py's own
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
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
from keyguard.runtime.connecting import CLOSED
from keyguard.stores.redis.scripts import CORRUPT, UNFIT

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_DOWN = (
    AskError,
    BusyLoadingError,
    ClusterError,
    ConnectionError,
    MovedError,
    NoScriptError,
    OSError,
    RedisClusterException,
    TimeoutError,
    TryAgainError,
)
_REFUSALS = ("MISCONF", "BUSY", "MASTERDOWN", "LOADING", "UNBLOCKED")
# Some servers put what a script's command was told behind the script's name.
_REPLACED = re.compile(r"(?:\A|: -)(?:READONLY|MASTERDOWN|NOREPLICAS) ")
_READ_ONLY = re.compile(r"(?:\A|: -)READONLY ")
# What a command in a script is told that the user may not run, or whose keys it may not touch.
_NO_RIGHT = "The user executing the script can't"
_DEMOTED = "The previous master is now a slave"  # what redis-py's Sentinel makes of READONLY
_NO_PRIMARY = "No master found"  # redis-py adds what each Sentinel did instead
_MOVED_ON = "TTL exhausted."  # what redis-py makes of such a refusal on asyncio in the end
_ECHO = ", with args beginning with"
_ADVICE = "run 'keyguard migrate', or call migrate() at start"


def is_lost(failure: BaseException) -> bool:
    """Return whether a connection broke, so that a new one may succeed."""
    return (
        isinstance(failure, ConnectionError | OSError)
        and not isinstance(failure, (*_REFUSED, MaxConnectionsError))
        and not may_be_replaced(failure)
        and _in_tls(failure) is None
    )


def may_be_replaced(failure: BaseException) -> bool:
    """Return whether a server refused a call because another is the primary, or may be.

    The server changed nothing. While a server starts, another may have taken over.
    """
    return (
        _is_read_only(failure)
        or isinstance(failure, BusyLoadingError | MasterDownError)
        or (isinstance(failure, ResponseError) and _REPLACED.search(str(failure)) is not None)
    )


def is_moving(failure: BaseException) -> bool:
    """Return whether a server refused a call because its keys are moving to another one.

    Not where they have moved already: the answer names the other server then.
    """
    is_on_its_way = isinstance(failure, TryAgainError | AskError)
    return (is_on_its_way and not isinstance(failure, MovedError)) or str(failure) == _MOVED_ON


def keeps_apart(reply: object) -> bool:
    """Return whether a server refused calls together that it may accept one by one; none ran."""
    return isinstance(reply, NoPermissionError) or keeps_slots_apart(reply)


def keeps_slots_apart(reply: object) -> bool:
    """Return whether a server refuses all calls together whose keys are in several slots."""
    # redis-py before 6.0 has the class for clusters alone.
    return isinstance(reply, ClusterCrossSlotError) or (
        isinstance(reply, ResponseError) and str(reply).startswith("CROSSSLOT ")
    )


def lacks_script(failure: BaseException) -> bool:
    """Return whether a server does not know a script by its digest; it ran nothing."""
    return isinstance(failure, NoScriptError)


def _is_read_only(failure: BaseException) -> bool:
    text = str(failure)
    return (
        isinstance(failure, ReadOnlyError)
        or (isinstance(failure, ResponseError) and _READ_ONLY.search(text) is not None)
        or (isinstance(failure, ConnectionError) and text == _DEMOTED)
    )


def explained(failure: BaseException, place: str) -> StoreError:
    """Return keyguard's error for a failure of redis-py's: what it means, and what to do.

    Args:
        failure: The exception of redis-py.
        place: The server's address, without secrets.
    """
    text = str(failure)
    if _ECHO in text:  # of a command that the server does not know, which may be AUTH
        failure.args = (text.partition(_ECHO)[0],)
    match failure:
        case _ if isinstance(failure, NoPermissionError) or _NO_RIGHT in text:
            return StoreUnavailableError(
                f"{place} refuses keyguard's user a right ({text.partition(' script: ')[0]}); have "
                "its ACL allow what the page on stores lists"
            )
        case ConnectionError() if text.startswith(_NO_PRIMARY) and "AuthenticationError" in text:
            return StoreUnavailableError(
                f"the Sentinels of {place} do not let keyguard in; check sentinel_username and "
                "sentinel_password in the URL"
            )
        case _ if isinstance(_of_node(failure), _REFUSED) or "unauthenticated" in text:
            return StoreUnavailableError(
                f"{place} does not let keyguard in; check the user and password of the URL"
            )
        case ResponseError() if "DB index is out of range" in text:
            return StoreUnavailableError(
                f"{place} does not let keyguard in, as there is no such database; check its number "
                "in the URL, and the server's setting 'databases'"
            )
        case TimeoutError() if text == CLOSED:
            return StoreUnavailableError(
                f"the connections to {place} were closed while a call waited for one; close a "
                "guard or a store only after its last call"
            )
        case MaxConnectionsError():
            return StoreUnavailableError(
                f"all connections to {place} are in use; try again later, or find out what holds "
                "them"
            )
        case _ if _is_read_only(failure):
            return StoreUnavailableError(
                f"{place} is a replica and can't be written to; name the primary, or use "
                "redis+sentinel://"
            )
        case OutOfMemoryError():
            return StoreUnavailableError(
                f"{place} is out of memory and accepts no data; raise its maxmemory"
            )
        case ResponseError() if UNFIT in text:
            return _unfit(text.partition(UNFIT)[2].split()[0], place)
        case ResponseError() if CORRUPT in text or "WRONGTYPE" in text:
            return CorruptDataError(
                f"{place} holds something under keyguard's names that keyguard never wrote; the "
                "cause says what; delete it or restore it from a backup"
            )
        case ResponseError() if "NOREPLICAS" in text:
            return StoreUnavailableError(
                f"{place} has too few replicas (min-replicas-to-write), so it may have been "
                "replaced as the primary and answers nothing; check that its replicas are connected"
            )
        case ResponseError() if text.startswith(_REFUSALS):
            return StoreUnavailableError(
                f"{place} takes no commands or no changes at present; the cause says why"
            )
        case _ if (cause := _in_tls(failure)) is not None:
            return _mistrusted(cause, place)
        case _ if isinstance(failure, _DOWN):
            return StoreUnavailableError(
                f"{place} is down, slow or overloaded; check that it runs and can be reached, then "
                "try again"
            )
        case _:
            return StoreError(
                f"{place} failed in a way that keyguard does not know; the cause says how"
            )


def _of_node(failure: BaseException) -> BaseException:
    """Return the failure of the last node that a client asked for the layout of a cluster."""
    is_of_cluster = isinstance(failure, RedisClusterException)
    return failure.__cause__ if is_of_cluster and failure.__cause__ else failure


def _in_tls(failure: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error behind a failure, or None."""
    seen: set[int] = set()
    while failure is not None and id(failure) not in seen:
        # An SSLEOFError says only that the connection ended.
        if isinstance(failure, ssl.SSLError) and not isinstance(failure, ssl.SSLEOFError):
            return failure
        seen.add(id(failure))
        failure = failure.__cause__ or failure.__context__
    return None


def _mistrusted(cause: ssl.SSLError, place: str) -> StoreUnavailableError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreUnavailableError(
            f"{place} shows a certificate that keyguard does not trust "
            f"({cause.verify_message.rstrip('.')}); name the CA that signed it with ssl_ca_certs, "
            "and use the host name that is in the certificate"
        )
    return StoreUnavailableError(
        f"{place} and keyguard do not agree on TLS ({cause.reason}); check that the port is the "
        "one for TLS, and check the options that begin with ssl_"
    )


def _unfit(found: str, place: str) -> SchemaError:
    if found == "none":
        return SchemaError(f"{place} has no keyguard store yet, or lost it; {_ADVICE}")
    return SchemaError(
        f"{place} holds a keyguard store of version {found!r}, which this keyguard does not know; "
        "use the version of keyguard that wrote it"
    )
