"""Scopes: their grammar, what a grant covers, and the catalogue of a service.

A scope is an RFC 6749 scope-token, by custom ``resource:action``. A *granted* scope may be a
wildcard: ``*`` covers every scope, ``inference:*`` covers every scope that is ``inference:`` and
exactly one more segment. Every other scope must match exactly, in the same case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError, shown

# RFC 6749, section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}\Z")
_MOST_SCOPES = 100
_MOST_GRANTS = 1000  # that a catalogue remembers


def parse_required(scopes: Iterable[object]) -> frozenset[str]:
    """Return the scopes that a route requires, checked: exact names, without wildcards.

    Raises:
        InvalidValueError: A scope is no scope-token, or has a wildcard.
    """
    return frozenset(_checked(scope, wildcard=False) for scope in _each(scopes))


def parse_granted(scopes: Iterable[object]) -> frozenset[str]:
    """Return at most 100 scopes of a key, checked; ``*`` is a scope or the whole last segment.

    Raises:
        InvalidValueError: A scope is no scope-token, has ``*`` elsewhere, or there are too many.
    """
    granted = frozenset(_checked(scope, wildcard=True) for scope in _each(scopes))
    if len(granted) > _MOST_SCOPES:
        raise InvalidValueError(f"a key carries at most {_MOST_SCOPES} scopes, not {len(granted)}")
    return granted


def _each(scopes: Iterable[object]) -> Iterable[object]:
    if isinstance(scopes, str):
        raise InvalidValueError(f"scopes are a list: write [{shown(scopes)}], not {shown(scopes)}")
    # Records have a frozenset. To ask about it alone is quicker than to ask the abstract class.
    if not isinstance(scopes, frozenset) and not isinstance(scopes, Iterable):
        raise InvalidValueError(f"scopes are a list of strings, not {type(scopes).__name__}")
    return scopes


def _checked(scope: object, *, wildcard: bool) -> str:
    if not isinstance(scope, str) or not _SCOPE_TOKEN.match(scope):
        raise InvalidValueError(
            f"{shown(scope)} is not a valid scope: use 1 to 100 printable ASCII characters "
            "without spaces, quotes and backslashes, such as 'inference:read'"
        )
    if "*" in scope:
        if not wildcard:
            raise InvalidValueError(f"a required scope is exact: {shown(scope)} holds a wildcard")
        if scope != "*" and not (scope.endswith(":*") and scope.count("*") == 1 and scope != ":*"):
            raise InvalidValueError(
                f"{shown(scope)} is not a valid scope: '*' stands alone or as the whole last "
                "segment, such as 'inference:*'"
            )
    return scope


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Requirement(Value):
    """The scopes that a route requires.

    Args:
        all_of: Scopes that are all needed.
        any_of: Scopes of which at least one is needed; empty for no such requirement.
    """

    all_of: frozenset[str] = frozenset()
    any_of: frozenset[str] = frozenset()

    @classmethod
    def of(cls, all_of: Iterable[str] = (), any_of: Iterable[str] | None = None) -> Requirement:
        """Return a requirement of the named scopes.

        Raises:
            InvalidValueError: A name is no scope, or ``any_of`` is an empty list, which no
                principal could meet.
        """
        either = parse_required(() if any_of is None else any_of)
        if any_of is not None and not either:
            raise InvalidValueError("any_of is empty: name the scopes of which one is needed")
        return cls(parse_required(all_of), either)

    @property
    def scopes(self) -> tuple[str, ...]:
        """All scopes of the requirement, sorted, as a challenge lists them."""
        return tuple(sorted(self.all_of | self.any_of))

    def met_by(self, grant: ScopeGrant) -> bool:
        """Return whether a grant meets the requirement."""
        return (self.all_of <= grant.exact or all(scope in grant for scope in self.all_of)) and (
            not self.any_of or any(scope in grant for scope in self.any_of)
        )


class ScopeGrant(Collection[str]):
    """The scopes of a key.

    ``scope in grant`` is true if the grant covers the scope, by name, wildcard or implication.
    Iteration yields the granted names.

    Args:
        granted: The scopes that were granted, perhaps with wildcards.
        implied: The scopes that they imply.

    Raises:
        InvalidValueError: One of these is no frozenset of strings.
    """

    __slots__ = ("_families", "exact", "granted")

    granted: frozenset[str]
    exact: frozenset[str]
    _families: frozenset[str]

    def __init__(self, granted: frozenset[str], implied: frozenset[str] = frozenset()) -> None:
        for scopes in (granted, implied):
            if not isinstance(scopes, frozenset) or not all(isinstance(s, str) for s in scopes):
                raise InvalidValueError(
                    f"a ScopeGrant takes frozensets of strings, such as frozenset({{'a:b'}}), not "
                    f"{shown(scopes)}"
                )
        families = frozenset(scope[:-1] for scope in granted if scope.endswith(":*"))
        for name, value in (
            ("granted", granted),
            ("exact", granted | implied),
            ("_families", families),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a grant does not change; the requests of one key share it")

    def __reduce__(self) -> tuple[type[ScopeGrant], tuple[frozenset[str], frozenset[str]]]:
        return ScopeGrant, (self.granted, self.exact)

    def __contains__(self, scope: object) -> bool:
        if scope in self.exact:
            return True
        if not isinstance(scope, str):
            return False
        if "*" in self.granted:
            return True
        family, colon, segment = scope.rpartition(":")
        return bool(segment) and family + colon in self._families

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.granted))

    def __len__(self) -> int:
        return len(self.granted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeGrant):
            return NotImplemented
        return (self.granted, self.exact) == (other.granted, other.exact)

    def __hash__(self) -> int:
        return hash((self.granted, self.exact))

    def __repr__(self) -> str:
        return f"ScopeGrant({sorted(self.granted)!r})"


def narrowed(grant: ScopeGrant, ceiling: ScopeGrant) -> frozenset[str]:
    """Return the scopes that both a grant and a ceiling cover; of two wildcards the narrower."""
    return frozenset(
        [
            *(scope for scope in grant.exact if scope in ceiling),
            *(scope for scope in ceiling.exact if scope in grant),
        ]
    )


class ScopeCatalogue:
    """The scopes that a service knows, with their descriptions and implications.

    Args:
        scopes: The description of each scope by its name, such as
            ``{"inference:read": "Read inference capabilities"}``.
        implies: The scopes that a scope implies, such as ``{"admin": ["analytics:read"]}``.
            Implications of implied scopes count as well.

    Raises:
        InvalidValueError: A value has the wrong type, a name is no scope, or ``implies`` has a name
            that is not in ``scopes``.
    """

    __slots__ = ("_closure", "_grants", "_scopes")

    def __init__(
        self, scopes: Mapping[str, str], *, implies: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        if not isinstance(scopes, Mapping):
            raise InvalidValueError("a catalogue is a mapping of scope to description")
        parse_required(scopes)
        if not all(isinstance(text, str) for text in scopes.values()):
            raise InvalidValueError("a scope's description is a string")
        if implies is not None and not isinstance(implies, Mapping):
            raise InvalidValueError("implies is a mapping of scope to the scopes that it implies")
        self._scopes = dict(scopes)
        direct = {name: parse_required(names) for name, names in (implies or {}).items()}
        for name in {*direct, *(name for names in direct.values() for name in names)}:
            self._known(name)
        self._closure = {name: _closure(name, direct) for name in self._scopes}
        self._grants: dict[frozenset[str], ScopeGrant] = {}

    def __contains__(self, scope: object) -> bool:
        return scope in self._scopes

    def __iter__(self) -> Iterator[str]:
        return iter(self._scopes)

    def __len__(self) -> int:
        return len(self._scopes)

    def __repr__(self) -> str:
        return f"ScopeCatalogue({self._scopes!r})"

    def describe(self, scope: str) -> str:
        """Return the description of a scope.

        Raises:
            InvalidValueError: The catalogue does not know the scope.
        """
        self._known(scope)
        return self._scopes[scope]

    def check_required(self, scopes: Iterable[str]) -> None:
        """Refuse required scopes that the catalogue does not know.

        Raises:
            InvalidValueError: A scope is unknown.
        """
        for scope in scopes:
            self._known(scope)

    def check_granted(self, scopes: Iterable[str]) -> None:
        """Refuse granted scopes that cover no scope of the catalogue.

        Raises:
            InvalidValueError: A scope is unknown, or a wildcard covers no known scope.
        """
        for scope in scopes:
            if scope.endswith("*"):
                grant = ScopeGrant(frozenset({scope}))
                if any(known in grant for known in self._scopes):
                    continue
            self._known(scope)

    def grant(self, granted: frozenset[str]) -> ScopeGrant:
        """Return the grant of some scopes and of all that they imply; keys with the same share it.

        Args:
            granted: The scopes.
        """
        grant = self._grants.get(granted)
        if grant is None:
            grant = ScopeGrant(granted, self.implied_by(granted))
            if len(self._grants) >= _MOST_GRANTS:
                self._grants.clear()
            self._grants[granted] = grant
        return grant

    def implied_by(self, granted: frozenset[str]) -> frozenset[str]:
        """Return every known scope that a grant covers, by name, wildcard or implication."""
        grant = ScopeGrant(granted)
        return frozenset[str]().union(
            *(closure for name, closure in self._closure.items() if name in grant)
        )

    def _known(self, scope: str) -> None:
        if scope not in self._scopes:
            known = ", ".join(sorted(self._scopes)) or "none"
            raise InvalidValueError(f"unknown scope {shown(scope)}; this service knows: {known}")


def _closure(name: str, direct: Mapping[str, frozenset[str]]) -> frozenset[str]:
    found = {name}
    open_ends = [name]
    while open_ends:
        new = direct.get(open_ends.pop(), frozenset()) - found
        found |= new
        open_ends += new
    return frozenset(found)
