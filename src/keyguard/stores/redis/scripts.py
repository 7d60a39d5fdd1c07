"""The Lua scripts that run inside Redis: each is one change or one look-up, whole or not at all.

All records lie under ``keyguard:{store}:``, in one slot of a cluster, so that one script can change
several of them:

:``schema``: the version of this layout
:``organization:ID``, ``key:ID``, ``request:ID``: a record, as a hash of its fields; "" stands for
    None
:``slugs``: a hash from slugs to the ids of organizations
:``organizations``, ``keys``, ``keys:ORGANIZATION``, ``family:FAMILY``, ``owner:OWNER``,
    ``requests``, ``requests:ORGANIZATION``, ``requester:REQUESTER``: sorted sets of creation times
    and ids
:``open``, ``open:ORGANIZATION``: the same of the requests that are open, by the second at which
    they no longer are
:``ids``: a sorted set of the ids of all keys; ``names:ORGANIZATION``: of names and ids
:``audit``: the audit trail, a stream
:``trail:ID``: a sorted set of the entries about one record; ``owned:ID``: about one organization
    and its keys
:``temporary:KIND:DIGEST``: a value that expires, behind the time of that

Usage is stored under ``keyguard:{ORGANIZATION}:usage``, in one slot for each organization, with the
limits' buckets. Each of these keys expires:

:``:DATETHOUR``: the quarters of an hour in UTC, a hash; ``:DATE:sums``: the sums of a date's
    quarters; ``:DATE``: the days that start on a date
:``:index``: a sorted set of the dates with quarters and the months with days
:``:folds``: how often something was folded or forgotten
:``:listed``: from which start on the store has the organization in its list ``unfolded``
:``:writer:ID``: the number and the part of a writer's last flush
:``:dismissed``: a sorted set of hints, by the time until which they are dismissed

and in the store's slot ``usage:writers``, a hash of how far each writer has reported;
``usage:unfolded``, a sorted set of organizations by the start of their first quarter; and
``usage:listings``, how often one was put there. That list may name too many, and never too few: an
organization is listed before its cells are added, and leaves the list only if nobody was listed
since it was found without quarters.

A caller passes a script the keys that it already knows. While a slot moves from one server to
another, Redis then refuses the script instead of treating what has not arrived yet as missing.

The record is the commit point. The indexes that lead to it are written before it; an index entry
without a record counts for nothing. Redis runs a script alone and replicates it as one transaction.
Only a key of an unexpected type could end a script halfway, so scripts check types before they
write.

A script that only reads first makes a write that changes nothing (``primary_check``). A server that
refuses it may not know the latest changes, so it gives no answer. Scripts that write need no such
check, nor does the one for read replicas (``read_key``), which says how old its answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha1
from importlib.resources import files
from typing import TypeAlias, Union

from keyguard.exceptions import CorruptDataError

VERSION = "1"
"""The version of the layout."""

STORE = "keyguard:{store}:"
"""The prefix of all keys of the key store."""

UNFIT = "KEYGUARDSCHEMA"
"""The first word of a script's error if the store has another layout or none."""

CORRUPT = "KEYGUARDCORRUPT"
"""The first word of a script's error if it found a value that keyguard never wrote."""

_CONSTANTS = f"local STORE, UNFIT, CORRUPT = '{STORE}', '{UNFIT}', '{CORRUPT}'\n"

DONE = "done"
"""What a script answers that made its change."""

Reply: TypeAlias = Union[bytes, str, int, "list[Reply]", None]
"""What Redis answers; text is ``str`` with a client that decodes responses."""

Replies: TypeAlias = list[Reply | Exception]
"""What it answers several commands; an error stands for a command that was refused."""


def text_of(reply: Reply) -> str:
    """Return a text of a reply, "" for None."""
    if isinstance(reply, bytes):
        return reply.decode()
    return "" if reply is None else str(reply)


def list_of(reply: Reply) -> list[Reply]:
    """Return the list that a reply is.

    Raises:
        CorruptDataError: The reply is no list.
    """
    if not isinstance(reply, list):
        raise CorruptDataError(f"Redis answered a script with a {type(reply).__name__}, not a list")
    return reply


def texts_of(reply: Reply) -> list[str]:
    """Return the texts in the list that a reply is."""
    return [text_of(part) for part in list_of(reply)]


class Script:
    """A script, made of files in the folder ``lua``.

    Args:
        parts: The files' names without suffix, in order.
        writes: Whether the script can change something. It is sent twice only if the server
            refused it the first time.
        joins: Whether it takes the keys and arguments of several calls, one after another, and
            answers them together.
    """

    def __init__(self, *parts: str, writes: bool, joins: bool = False) -> None:
        self.writes = writes
        self.joins = joins
        self._parts = parts

    @cached_property
    def text(self) -> str:
        """The Lua source."""
        folder = files("keyguard.stores.redis") / "lua"
        sources = [(folder / f"{part}.lua").read_text("utf-8") for part in self._parts]
        return _CONSTANTS + "".join(sources)

    @cached_property
    def digest(self) -> str:
        """The name by which Redis calls a script that it has run before."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


Command: TypeAlias = bytes
"""A command as it is sent."""


def pack(name: str, *arguments: str) -> Command:
    """Return a command in the protocol that all servers speak (RESP).

    Args:
        name: Its name.
        arguments: Its arguments.
    """
    return b"*%d\r\n%b" % (1 + len(arguments), _strings(name, *arguments))


def _strings(*texts: str) -> bytes:
    parts = [text.encode() for text in texts]
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class ScriptCall:
    """A script with its keys and arguments.

    Args:
        script: The script.
        keys: The keys that it works on. The first decides which server of a cluster runs it.
        arguments: Its other arguments.

    Attributes:
        by_digest: The command that calls the script on a server that has run it before.
    """

    __slots__ = ("_arguments", "_keys", "arguments", "by_digest", "keys", "script")

    def __init__(self, script: Script, keys: tuple[str, ...], arguments: tuple[str, ...]) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self._keys, self._arguments = _strings(*keys), _strings(*arguments)
        self.by_digest = self.joined(())

    def joined(self, others: Sequence[ScriptCall]) -> Command:
        """Return the command that makes this and further calls of a script that joins them."""
        calls = (self, *others)
        number = sum([len(call.keys) for call in calls])
        parts = 3 + number + sum([len(call.arguments) for call in calls])
        start = _strings("EVALSHA", self.script.digest, str(number))
        rest = [call._keys for call in calls] + [call._arguments for call in calls]
        return b"*%d\r\n%b%b" % (parts, start, b"".join(rest))

    def in_full(self) -> Command:
        """Return the command that calls the script on any server."""
        return pack("EVAL", self.script.text, str(len(self.keys)), *self.keys, *self.arguments)


def only(replies: Replies) -> Reply:
    """Return the reply to a single command, or raise the error that stands in its place."""
    (reply,) = replies
    if isinstance(reply, Exception):
        raise reply
    return reply


def parted(reply: Reply | Exception, number: int) -> Replies:
    """Return the reply to each of several calls that were joined.

    Args:
        reply: The reply to all: a text with a line for each, or a list if some failed.
        number: How many they are.

    Returns:
        The replies, None for each if they are something else.
    """
    if isinstance(reply, Exception):
        return [reply] * number
    parts = reply.splitlines() if isinstance(reply, bytes | str) else reply
    return [*parts] if isinstance(parts, list) and len(parts) == number else [None] * number


def store_call(script: Script, *arguments: str, keys: tuple[str, ...] = ()) -> ScriptCall:
    """Return the call of a script of the key store.

    Args:
        script: The script.
        arguments: Its arguments after the version.
        keys: Its keys after the schema, without the store's prefix.
    """
    return ScriptCall(
        script, (f"{STORE}schema", *[STORE + key for key in keys]), (VERSION, *arguments)
    )


MIGRATE = Script("migrate", writes=True)
COMMIT = Script("layout_check", "stream_names", "witnesses", "commit", writes=True)
END = Script("layout_check", "stream_names", "witnesses", "end", writes=True)
REHASH_KEY = Script("layout_check", "rehash_key", writes=True)
MARK_USED = Script("layout_check", "mark_used", writes=True)
FIND_SLUG = Script("primary_check", "layout_check", "find_slug", writes=False)
FIND_RECORD = Script("primary_check", "layout_check", "find_record", writes=False)
FIND_KEY = Script("primary_check", "layout_check", "find_key", writes=False)
READ_KEY = Script("layout_check", "read_key", writes=False)
FIND_EXISTING = Script("primary_check", "layout_check", "find_existing", writes=False)
LIST_RECORDS = Script("primary_check", "layout_check", "list_records", writes=False)
LIST_DIGESTS = Script("primary_check", "layout_check", "list_digests", writes=False)
LIST_AUDIT = Script("primary_check", "layout_check", "list_audit", writes=False)
LIST_TRAIL = Script("primary_check", "layout_check", "stream_names", "list_trail", writes=False)
LIST_OLDEST = Script("primary_check", "layout_check", "list_oldest", writes=False)
DELETE_ENTRIES = Script("layout_check", "stream_names", "delete_entries", writes=True)
PUT_TEMPORARY = Script("layout_check", "put_temporary", writes=True)
FIND_TEMPORARY = Script("primary_check", "layout_check", "find_temporary", writes=False)
TAKE_TEMPORARY = Script("layout_check", "take_temporary", writes=True)
NEWS = Script("primary_check", "layout_check", "news", writes=False)
HIT = Script("counting", "hit", writes=True, joins=True)
ADJUST = Script("counting", "adjust", writes=True)
USAGE_ADD = Script("usage_cells", "usage_add", writes=True)
USAGE_INDEX = Script("primary_check", "usage_index", writes=False)
USAGE_TOTALS = Script("primary_check", "usage_cells", "usage_totals", writes=False)
USAGE_FOLD = Script("usage_cells", "usage_fold", writes=True)
USAGE_FIRST = Script("usage_cells", "usage_first", writes=True)
USAGE_FORGET = Script("usage_cells", "usage_forget", writes=True)
USAGE_DISMISS = Script("usage_dismiss", writes=True)
USAGE_DISMISSED = Script("primary_check", "usage_dismissed", writes=False)
USAGE_LIST = Script("layout_check", "usage_cells", "usage_list", writes=True)
USAGE_UNFOLDED = Script("primary_check", "layout_check", "usage_unfolded", writes=False)
USAGE_ADVANCE = Script("layout_check", "usage_cells", "usage_advance", writes=True)
USAGE_NOTE = Script("layout_check", "usage_cells", "usage_note", writes=True)
USAGE_WRITERS = Script(
    "primary_check", "layout_check", "usage_cells", "usage_writers", writes=False
)
USAGE_LEAVE = Script("layout_check", "usage_leave", writes=True)
