"""Rules: what a request must have, by its path and method."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from copy import copy
from dataclasses import dataclass, field

from keyguard.core.http.paths import parse_template
from keyguard.core.identity.principal import Request
from keyguard.core.identity.scopes import Requirement
from keyguard.core.limits.limit import Limit, Limits, RouteLimit, read_limits
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError, shown

METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
"""Some applications read another method from these fields, in lower case; keyguard does not."""

_METHOD = r"[A-Z][A-Z0-9_-]*\Z"  # RFC 9110 allows more; no framework routes the others
_NOT_IN_A_NAME = r"[^A-Za-z0-9]+"
_LONGEST_NAME = 64
_LOGIN = r"[A-Za-z][A-Za-z0-9-]{0,63}\Z"
_NEEDS_KEY = ("key", "organization")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rule(Value):
    """A rule: what requests to some paths need.

    ::

        Rule("/v1/models/{model_id}", methods=["GET"], scopes=["inference:read"])
        Rule("/static/{path:path}", public=True)

    A rule that is not public covers its path with and without a slash at the end.

    With ``also``, a request without keyguard's credentials goes on to the application, with None as
    its principal. The application must then refuse callers that it does not know. The scopes and
    limits of such a rule apply only to requests with keys.

    Args:
        path: A path template: ``{name}`` stands for a segment, ``{name:path}`` at the end for any
            rest of the path.
        methods: The methods of the rule, in upper case; None for all. ``GET`` covers ``HEAD``.
        public: Whether requests need no key.
        scopes: Scopes that are all needed.
        any_of: Scopes of which at least one is needed.
        limits: Limits of the rule, besides those of the key: one or several
            :class:`~keyguard.Limit` or rates such as ``"60/minute"``. Limits of the same name
            share their count.
        cost: How much a request counts in these limits, at least 1, or a function of the
            :class:`~keyguard.Request`.
        also: The name of the application's own login, which it accepts beside keys, such as
            ``"session"`` or ``"JWT"``. None if it accepts only keys. Reports show the name.

    Raises:
        InvalidValueError: A value has the wrong type or form, no path can match the rule, or its
            values contradict each other.
    """

    path: str
    methods: Iterable[str] | None = field(default=None, kw_only=True)
    public: bool = field(default=False, kw_only=True)
    scopes: Iterable[str] | None = field(default=None, kw_only=True)
    any_of: Iterable[str] | None = field(default=None, kw_only=True)
    limits: Limits = field(default=(), kw_only=True)
    cost: int | Callable[[Request], int] = field(default=1, kw_only=True)
    also: str | None = field(default=None, kw_only=True)
    segments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    requirement: Requirement | None = field(init=False, repr=False, compare=False)
    charged: tuple[RouteLimit, ...] = field(init=False, repr=False, compare=False)
    depends_on_method: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = parse_template(self.path)
        if not isinstance(self.public, bool):
            raise self._refusal(f"public takes True or False, not {shown(self.public)}")
        self._check_also()
        methods = self._read_methods()
        requirement = self._read_requirement()
        shared, limits = self._read_limits()
        if self.public and requirement is not None:
            raise self._refusal(
                "a public path can't ask for scopes; leave out public or the scopes"
            )
        if self.public and any(limit.per in _NEEDS_KEY for limit in limits):
            raise self._refusal(
                "on a public path there is no key: its limits must be per 'address' or per a "
                "function"
            )
        if not limits and self.cost != 1:
            raise self._refusal("a cost is for the rule's own limits, but the rule has none")
        name = self.path if methods is None else f"{' '.join(sorted(methods))} {self.path}"
        charged = tuple(
            RouteLimit(limit=limit, route=limit.name if limit in shared else name, cost=self.cost)
            for limit in limits
        )
        for slot, value in (
            ("methods", methods),
            ("limits", limits),
            ("segments", segments),
            ("requirement", requirement),
            ("charged", charged),
            ("depends_on_method", methods is not None),
        ):
            object.__setattr__(self, slot, value)

    def covers(self, method: str) -> bool:
        """Return whether the rule is for a method. Pass GET for HEAD."""
        return self.methods is None or method in self.methods

    def for_keys(self) -> Rule:
        """Return the rule without its other login."""
        rule = copy(self)
        object.__setattr__(rule, "also", None)
        return rule

    def beside(self, others: Iterable[Rule]) -> Rule:
        """Return the rule as it holds beside the others of the same path, which may need more."""
        if self.depends_on_method or all(
            other.public or (other.also and not self.public)
            for other in others
            if other is not self
        ):
            return self
        rule = copy(self)
        object.__setattr__(rule, "depends_on_method", True)
        return rule

    def without_key(self) -> tuple[RouteLimit, ...]:
        """Return the limits that a request without a key is charged to."""
        return tuple(limit for limit in self.charged if limit.limit.per not in _NEEDS_KEY)

    def _check_also(self) -> None:
        also = self.also
        if also is None:
            return
        if not (isinstance(also, str) and re.match(_LOGIN, also)):
            raise self._refusal(
                "also names the application's own login in letters, digits and '-', such as "
                f"'session', not {shown(also)}"
            )
        if self.public:
            raise self._refusal("a public path needs no login; leave out public or also")

    def _read_methods(self) -> frozenset[str] | None:
        if self.methods is None:
            return None
        if isinstance(self.methods, str) or not isinstance(self.methods, Iterable):
            raise self._refusal(f"methods is a list, such as ['GET'], not {shown(self.methods)}")
        methods = tuple(self.methods)
        for method in methods:
            if not isinstance(method, str) or not re.match(_METHOD, method):
                raise self._refusal(
                    f"{shown(method)} is not a valid method: write it in upper case, as 'GET'"
                )
        if not methods:
            raise self._refusal("methods is empty: leave it out for all, or name some")
        if "HEAD" in methods and "GET" not in methods:
            raise self._refusal("HEAD is guarded as GET: name 'GET'")
        return frozenset(methods) - {"HEAD"}

    def _read_requirement(self) -> Requirement | None:
        scopes, any_of = self.scopes, self.any_of
        for name, given in (("scopes", scopes), ("any_of", any_of)):
            if isinstance(given, str):
                raise self._refusal(f"{name} is a list: write [{shown(given)}]")
            if given is not None and not isinstance(given, Iterable):
                raise self._refusal(f"{name} is a list, not {shown(given)}")
        if scopes is not None:
            object.__setattr__(self, "scopes", scopes := tuple(scopes))
            if not scopes:
                raise self._refusal("scopes is empty: leave it out, or name some")
        if any_of is not None:
            object.__setattr__(self, "any_of", any_of := tuple(any_of))
        requirement = Requirement.of(scopes or (), any_of)
        return requirement if requirement.scopes else None

    def _read_limits(self) -> tuple[list[Limit], tuple[Limit, ...]]:
        """Return the named limits, and all limits. Rates without a name become one limit."""
        limits: object = [self.limits] if isinstance(self.limits, Limit | str) else self.limits
        if not isinstance(limits, list | tuple):
            raise self._refusal(f"limits is a list of limits, not a {type(limits).__name__}")
        named: list[Limit] = []
        rates: list[str] = []
        for limit in limits:  # pyright: ignore[reportUnknownVariableType]  # of anything
            if isinstance(limit, Limit):
                named.append(limit)
            elif isinstance(limit, str):
                rates.append(limit)
            else:
                wrong = shown(limit)  # pyright: ignore[reportUnknownArgumentType]  # of anything
                raise self._refusal(
                    f"a limit is a Limit or a rate such as '60/minute', not {wrong}"
                )
        if not rates:
            return named, read_limits(named, "key")
        name = re.sub(_NOT_IN_A_NAME, "-", self.path).strip("-")[:_LONGEST_NAME].strip("-")
        unnamed = Limit(name or "root", "; ".join(rates))
        return named, read_limits([*named, unnamed], "key")

    def _refusal(self, why: str) -> InvalidValueError:
        return InvalidValueError(f"rule {self.path!r}: {why}")


def needs_no_key(rule: Rule | None, fields: Container[str]) -> bool:
    """Return whether a rule lets a request without keyguard's credentials through.

    Args:
        rule: The rule for it.
        fields: The fields of :data:`METHOD_OVERRIDES` that the request has.
    """
    if rule is None or not (rule.public or rule.also):
        return False
    # If only some methods need no key, the application may believe a field that names another.
    return not (rule.depends_on_method and any(name in fields for name in METHOD_OVERRIDES))
