"""Rules: what a request needs by its path and method, before the application sees it.

What no rule names needs a key. The most specific rule decides, whatever their order: segment by
segment from the left a literal comes before a parameter, and that before the rest of a path; of
two with one path the one that names the method.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.http.paths import REST, SEGMENT, is_ambiguous, parse_template
from keyguard.core.identity.principal import Request
from keyguard.core.identity.scopes import Requirement, ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits, RouteLimit, read_limits
from keyguard.exceptions import InvalidValueError

__all__ = ["UNASKED_FIELDS", "Rule", "RuleBook", "is_preflight", "needs_no_key"]

_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
"""By these some applications let a client name another method; keyguard goes by none of them."""

_ASKS = ("origin", "access-control-request-method")
_NEVER_ASKS = (
    *("authorization", "proxy-authorization", "cookie", "content-length", "transfer-encoding"),
    *_OVERRIDES,
)
UNASKED_FIELDS = (*_ASKS, *_NEVER_ASKS)
"""By these it is decided whether a request needs no key, in lower case."""

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*\Z")  # RFC 9110 lets more be one; no framework routes those
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9]+")
_LONGEST_NAME = 64
_NEEDS_KEY = ("key", "organization")


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests to some paths need.

    ::

        Rule("/v1/models/{model_id}", methods=["GET"], scopes=["inference:read"])
        Rule("/static/{path:path}", public=True)

    A rule that is not public covers its path with and without a slash at the end.

    Args:
        path: A path template: ``{name}`` stands for one segment, ``{name:path}`` at the end for
            anything below.
        methods: The methods it is for, in upper case; None for all. ``GET`` covers ``HEAD``.
        public: Whether no key is needed.
        scopes: Scopes that are all needed.
        any_of: Scopes of which one is needed.
        limits: What a request is charged to, besides the limits of its key: one or several
            :class:`~keyguard.Limit` or rates such as ``"60/minute"``. Those of one name share
            their count.
        cost: What a request counts for in them, at least 1, or a function of the
            :class:`~keyguard.Request`.

    Raises:
        InvalidValueError: A value is not as said, or the rule can never match or means nothing.
    """

    path: str
    methods: Iterable[str] | None = field(default=None, kw_only=True)
    public: bool = field(default=False, kw_only=True)
    scopes: Iterable[str] | None = field(default=None, kw_only=True)
    any_of: Iterable[str] | None = field(default=None, kw_only=True)
    limits: Limits = field(default=(), kw_only=True)
    cost: int | Callable[[Request], int] = field(default=1, kw_only=True)
    segments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    requirement: Requirement | None = field(init=False, repr=False, compare=False)
    charged: tuple[RouteLimit, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = parse_template(self.path)
        if not isinstance(self.public, bool):
            raise self._refusal(f"public takes True or False, not {self.public!r}")
        methods = self._read_methods()
        requirement = self._read_requirement()
        limits = self._read_limits()
        if self.public and requirement is not None:
            raise self._refusal("a public path asks for no scopes; leave out one of them")
        if self.public and any(limit.per in _NEEDS_KEY for limit in limits):
            raise self._refusal(
                "on a public path there is no key: its limits are per 'address', or per a function"
            )
        if not limits and self.cost != 1:
            raise self._refusal("a cost is for the rule's own limits, and it has none")
        name = self.path if methods is None else f"{' '.join(sorted(methods))} {self.path}"
        shared = {limit.name for limit in self._whole_limits()}
        charged = tuple(
            RouteLimit(
                limit=limit, route=limit.name if limit.name in shared else name, cost=self.cost
            )
            for limit in limits
        )
        for slot, value in (
            ("methods", methods),
            ("limits", limits),
            ("scopes", None if self.scopes is None else tuple(self.scopes)),
            ("any_of", None if self.any_of is None else tuple(self.any_of)),
            ("segments", segments),
            ("requirement", requirement),
            ("charged", charged),
        ):
            object.__setattr__(self, slot, value)

    def covers(self, method: str) -> bool:
        """Tell whether the rule is for a method; HEAD is asked as GET."""
        return self.methods is None or method in self.methods

    def _read_methods(self) -> frozenset[str] | None:
        if self.methods is None:
            return None
        if isinstance(self.methods, str) or not isinstance(self.methods, Iterable):
            raise self._refusal(f"methods is a list, such as ['GET'], not {self.methods!r}")
        methods = tuple(self.methods)
        for method in methods:
            if not isinstance(method, str) or not _METHOD.match(method):
                raise self._refusal(f"{method!r} is no method: write it in upper case, as 'GET'")
        if not methods:
            raise self._refusal("methods is empty: leave it out for all, or name some")
        if "HEAD" in methods and "GET" not in methods:
            raise self._refusal("HEAD is guarded as GET: name 'GET'")
        return frozenset(methods) - {"HEAD"}

    def _read_requirement(self) -> Requirement | None:
        scopes, any_of = self.scopes, self.any_of
        for name, given in (("scopes", scopes), ("any_of", any_of)):
            if isinstance(given, str):
                raise self._refusal(f"{name} is a list: write [{given!r}]")
            if given is not None and not isinstance(given, Iterable):
                raise self._refusal(f"{name} is a list, not {given!r}")
        if scopes is not None:
            object.__setattr__(self, "scopes", scopes := tuple(scopes))
            if not scopes:
                raise self._refusal("scopes is empty: leave it out, or name some")
        if any_of is not None:
            object.__setattr__(self, "any_of", any_of := tuple(any_of))
        requirement = Requirement.of(scopes or (), any_of)
        return requirement if requirement.scopes else None

    def _whole_limits(self) -> list[Limit]:
        given: Any = (self.limits,) if isinstance(self.limits, Limit | str) else self.limits
        return [limit for limit in given if isinstance(limit, Limit)]

    def _read_limits(self) -> tuple[Limit, ...]:
        given: object = self.limits
        if isinstance(given, Limit | str):
            given = (given,)
        if not isinstance(given, list | tuple):
            raise self._refusal(f"limits is a list of limits, not a {type(given).__name__}")
        limits = cast("Sequence[Any]", given)
        object.__setattr__(self, "limits", limits)
        rates = [one for one in limits if not isinstance(one, Limit)]
        for rate in rates:
            if not isinstance(rate, str):
                raise self._refusal(
                    f"a limit is a Limit or a rate such as '60/minute', not {rate!r}"
                )
        found = [one for one in limits if isinstance(one, Limit)]
        if rates:
            name = _NOT_IN_A_NAME.sub("-", self.path).strip("-")[:_LONGEST_NAME].strip("-")
            found.append(Limit(name or "root", "; ".join(rates)))
        return read_limits(found, "key")

    def _refusal(self, why: str) -> InvalidValueError:
        return InvalidValueError(f"rule {self.path!r}: {why}")


class _Node:
    """Where a path has got to in the templates of a book."""

    __slots__ = ("literals", "rest", "rules", "segment")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.segment: _Node | None = None
        self.rules: list[Rule] = []  # those that end here
        self.rest: list[Rule] = []  # those that take all that follows


class RuleBook:
    """All rules of one service, ready to be asked.

    Args:
        rules: The rules, in any order.
        public: Exact paths that need no key: short for a public rule each.
        catalogue: The scopes of the service, or None where any may be used.

    Attributes:
        rules: All rules, the public paths among them.
        paths: Where there are only exact public paths, these; a request for another needs a key.
        everywhere: Whether any request has to be looked up.

    Raises:
        InvalidValueError: A rule is none, conflicts with another, or names an unknown scope.
    """

    __slots__ = ("_asks", "_root", "everywhere", "paths", "rules")

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        public: Iterable[str] = (),
        catalogue: ScopeCatalogue | None = None,
    ) -> None:
        exact = [Rule(path, public=True) for path in _read_public(public)]
        if isinstance(rules, Rule) or not isinstance(rules, Iterable):
            raise InvalidValueError("rules are a list of keyguard.Rule")
        self.rules = (*exact, *rules)
        self._root = _Node()
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise InvalidValueError(f"rules are a list of keyguard.Rule, not of {rule!r}")
            if rule.requirement is not None and catalogue is not None:
                catalogue.check_required(rule.requirement.scopes)
            self._add(rule)
        self._asks = not all(rule.public for rule in self.rules)
        self.everywhere = len(self.rules) > len(exact)
        self.paths = frozenset(rule.path for rule in exact)

    def find(self, path: str, method: str, raw_path: bytes | None = None) -> Rule | Deny | None:
        """Return the rule for a request.

        A public rule never opens what a more specific rule names for other methods.

        Args:
            path: The decoded path that the router sees.
            method: The request method; a WebSocket's is ``GET``.
            raw_path: The path as it stood on the request line, without the query, or None where
                the server does not say.

        Returns:
            The rule; None where a key is needed and nothing else; or the refusal of a path that
            may be read as another one, where rules ask for more than a key. Such a path is never
            public.
        """
        path = path or "/"  # some routers take the one for the other
        if is_ambiguous(path, raw_path):
            return Deny(Reason.PATH_AMBIGUOUS) if self._asks else None
        # Some routers take methods in any case: who asks for something means those as well, and
        # what is public is so as it stands.
        named = not method.isupper()
        method = method.upper()
        if method == "HEAD":
            method = "GET"
        for rules, exactly in self._matches(path):
            for rule in rules:
                if rule.covers(method) and not (rule.public and (named or not exactly)):
                    return rule
            named = named or not all(rule.public for rule in rules)
        return None

    def _add(self, rule: Rule) -> None:
        node = self._root
        for segment in rule.segments:
            if segment == REST:
                break
            if segment == SEGMENT:
                node.segment = node.segment or _Node()
                node = node.segment
            else:
                node = node.literals.setdefault(segment, _Node())
        siblings = node.rest if rule.segments[-1] == REST else node.rules
        for other in siblings:
            if _overlap(rule, other):
                raise InvalidValueError(
                    f"two rules are for {rule.path!r}"
                    + (f" (and {other.path!r})" if other.path != rule.path else "")
                    + ": join them, or let them name different methods"
                )
        siblings.append(rule)
        siblings.sort(key=_names_no_methods)

    def _matches(self, path: str) -> list[tuple[list[Rule], bool]]:
        """Return the rules whose template a path matches, the most specific first.

        With each comes whether it matches as it stands, and not for a slash at its end.
        """
        found: list[tuple[list[Rule], bool]] = []
        _walk(self._root, path[1:].split("/"), 0, found)
        return found


def needs_no_key(rule: Rule | None, fields: Container[str]) -> bool:
    """Tell whether a rule lets a request through without a key.

    Args:
        rule: The rule for it.
        fields: Which of :data:`UNASKED_FIELDS` it has.
    """
    if rule is None or not rule.public:
        return False
    # Open for some methods only: an application may believe a field that names another one.
    return rule.methods is None or not any(name in fields for name in _OVERRIDES)


def is_preflight(method: str, fields: Container[str]) -> bool:
    """Tell whether a request is a browser's question before a CORS request (Fetch, section 4.8).

    Browsers send no credentials with it, no content, and no field that an application may take for
    another method; what carries some is a request like any other.

    Args:
        method: The request method.
        fields: The names of the header fields, in lower case.
    """
    return (
        method == "OPTIONS"
        and all(name in fields for name in _ASKS)
        and not any(name in fields for name in _NEVER_ASKS)
    )


def _walk(node: _Node, segments: list[str], at: int, found: list[tuple[list[Rule], bool]]) -> None:
    # Visits each node at most once, so it takes time linear in the number of rules.
    left = len(segments) - at
    if left == 0:
        _end(node, found)
        return
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        _walk(literal, segments, at + 1, found)
    if segment and node.segment is not None:
        _walk(node.segment, segments, at + 1, found)
    if left == 1 and not segment and node.rules:
        found.append((node.rules, False))  # "/a/", and a rule for "/a"
    if node.rest:
        found.append((node.rest, True))


def _end(node: _Node, found: list[tuple[list[Rule], bool]]) -> None:
    if node.rules:
        found.append((node.rules, True))
    slash = node.literals.get("")
    if slash is not None and slash.rules:
        found.append((slash.rules, False))  # "/a", and a rule for "/a/"
    if node.rest:
        found.append((node.rest, False))  # "/a", and a rule for all below


def _overlap(one: Rule, other: Rule) -> bool:
    if one.methods is None or other.methods is None:
        return one.methods is other.methods
    return not frozenset(one.methods).isdisjoint(other.methods)


def _names_no_methods(rule: Rule) -> bool:
    return rule.methods is None


def _read_public(public: Iterable[str]) -> list[str]:
    if isinstance(public, str):
        raise InvalidValueError(f"public paths are a list: write [{public!r}]")
    if not isinstance(public, Iterable):
        raise InvalidValueError(f"public paths are a list, not {public!r}")
    return sorted({_exact(path) for path in public})


def _exact(path: object) -> str:
    segments = parse_template(path)
    if SEGMENT in segments or REST in segments:
        raise InvalidValueError(
            f"{path!r} is no exact path; for a template use Rule({path!r}, public=True)"
        )
    return str(path)
