"""The rule book: it finds the rule for a request.

A request without a rule needs a key. The most specific rule decides, whatever the order of rules.
Segment by segment from the left, a literal is more specific than a parameter, and a parameter than
the rest of a path; of two rules for a path, the rule that names the method is more specific.
"""

from __future__ import annotations

from collections.abc import Iterable

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.http.paths import REST, SEGMENT, is_ambiguous, parse_template, readings
from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.exceptions import InvalidValueError, shown


class _Node:
    """A node in the tree of all templates. The segments before it have matched."""

    __slots__ = ("literals", "rest", "rules", "segment")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.segment: _Node | None = None
        self.rules: list[Rule] = []  # those that end here
        self.rest: list[Rule] = []  # those that match any rest


class RuleBook:
    """All rules of a service.

    Args:
        rules: The rules, in any order.
        public: Exact paths that need no key; each stands for a public rule.
        catalogue: The scopes of the service, or None if it takes any scope.
        any_spelling: Whether a rule that is not public covers its paths in any case, and with a
            format suffix as well.

    Attributes:
        rules: All rules; those of the public paths come first.
        paths: The exact public paths.
        everywhere: Whether there are other rules, so that the rule of every request must be looked
            up.
        any_spelling: As given.

    Raises:
        InvalidValueError: An item is no rule, two rules conflict, or a rule names an unknown scope.
    """

    __slots__ = ("_asks", "_root", "any_spelling", "everywhere", "paths", "rules")

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        public: Iterable[str] = (),
        catalogue: ScopeCatalogue | None = None,
        *,
        any_spelling: bool = False,
    ) -> None:
        self.any_spelling = any_spelling
        exact = [Rule(path, public=True) for path in _read_public(public)]
        if isinstance(rules, Rule | str) or not isinstance(rules, Iterable):
            raise InvalidValueError("rules are a list of keyguard.Rule")
        self.rules = (*exact, *rules)
        self._root = _Node()
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise InvalidValueError(f"rules are a list of keyguard.Rule, not of {shown(rule)}")
            if rule.requirement is not None and catalogue is not None:
                _check_scopes(rule, rule.requirement.scopes, catalogue)
            self._add(rule)
        self._asks = not all(rule.public for rule in self.rules)
        self.everywhere = len(self.rules) > len(exact)
        self.paths = frozenset(rule.path for rule in exact)

    def find(self, path: str, method: str, raw_path: bytes | None = None) -> Rule | Deny | None:
        """Return the rule for a request.

        A public rule never opens a path that a more specific rule names for other methods. A rule
        for keys and another login does not open one either, unless the more specific rule accepts
        another login as well.

        Args:
            path: The decoded path that the router sees.
            method: The request method; a WebSocket's is ``GET``.
            raw_path: The path on the request line, without the query, or None if the server does
                not provide it.

        Returns:
            The rule; None if the request needs only a key; or the refusal of an ambiguous path, if
            any rule is not public and not all readings of the path lead to the same rule. An
            ambiguous path always needs a key.
        """
        path = path or "/"  # some routers treat both as the same
        if is_ambiguous(path, raw_path):
            return self._find_for_all(path, method, raw_path) if self._asks else None
        return self._find(path, method)

    def _find_for_all(self, path: str, method: str, raw_path: bytes | None) -> Rule | Deny | None:
        """Return the rule that is the same for all readings of an ambiguous path, or a refusal."""
        found = [self._find(each, method) for each in readings(path, raw_path) or ()]
        if not found or any(rule != found[0] for rule in found):
            return Deny(Reason.PATH_AMBIGUOUS)
        rule = found[0]
        return None if rule is None or rule.public else rule.for_keys()

    def _find(self, path: str, method: str) -> Rule | None:
        # Some routers match methods in any case. So a rule that is not public covers any case, but
        # a public rule covers only the exact method.
        named = keyed = not method.isupper()
        method = method.upper()
        if method == "HEAD":
            method = "GET"
        found: list[tuple[list[Rule], bool]] = []
        segments = path[1:].split("/")
        if self.any_spelling:
            lower = path[1:].lower().split("/")
            _match(self._root, lower, 0, found, _stem_of(lower))
        else:
            _match(self._root, segments, 0, found)
        for rules, exactly in found:
            for rule in rules:
                if not rule.covers(method):
                    continue
                if not (rule.public or rule.also):
                    return rule
                opens = exactly and _is_spelled(rule, segments)
                if opens and not (named if rule.public else keyed):
                    return rule
                if rule.also:
                    return rule.for_keys()
            named = named or not all(rule.public for rule in rules)
            keyed = keyed or not all(rule.public or rule.also for rule in rules)
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
                literal = segment.lower() if self.any_spelling else segment
                node = node.literals.setdefault(literal, _Node())
        siblings = node.rest if rule.segments[-1] == REST else node.rules
        for other in siblings:
            if _overlap(rule, other):
                raise InvalidValueError(
                    f"two rules are for {rule.path!r}"
                    + (f" (and {other.path!r})" if other.path != rule.path else "")
                    + ": join them, or let them name different methods"
                )
        siblings.append(rule)
        siblings.sort(key=lambda rule: rule.methods is None)
        siblings[:] = [each.beside(siblings) for each in siblings]


def _match(
    node: _Node,
    segments: list[str],
    at: int,
    found: list[tuple[list[Rule], bool]],
    stem: tuple[int, str] | None = None,
    *,
    exactly: bool = True,
) -> None:
    """Append the rules whose templates match a path, the most specific first.

    Each rule comes with whether the match is exact, or ignores a slash or a format suffix at the
    end. ``stem`` is the position of the segment that has such a suffix, and that segment without
    it. This visits each node at most once, so it takes time linear in the number of rules.
    """
    left = len(segments) - at
    if left:
        segment = segments[at]
        literal = node.literals.get(segment)
        if literal is not None:
            _match(literal, segments, at + 1, found, stem, exactly=exactly)
        if stem is not None and stem[0] == at and stem[1] in node.literals:
            _match(node.literals[stem[1]], segments, at + 1, found, stem, exactly=False)
        if segment and node.segment is not None:
            _match(node.segment, segments, at + 1, found, stem, exactly=exactly)
        if left == 1 and not segment and node.rules:
            found.append((node.rules, False))  # "/a/", and a rule for "/a"
    else:
        if node.rules:
            found.append((node.rules, exactly))
        slash = node.literals.get("")
        if slash is not None and slash.rules:
            found.append((slash.rules, False))  # "/a", and a rule for "/a/"
    if node.rest:
        # Not exact: "/a", and a rule for "/a/{rest:path}".
        found.append((node.rest, exactly and left > 0))


def _stem_of(segments: list[str]) -> tuple[int, str] | None:
    """Return the position of a path's last segment, and that segment without a format suffix."""
    at = len(segments) - (2 if segments[-1] == "" else 1)
    stem, _, suffix = segments[at].rpartition(".")
    return (at, stem) if stem and suffix.isalnum() else None


def _is_spelled(rule: Rule, segments: list[str]) -> bool:
    """Return whether a path has the literals of a rule that matches it, in the same case."""
    return all(
        literal in (SEGMENT, REST) or literal == segment
        for literal, segment in zip(rule.segments, segments, strict=False)
    )


def _overlap(rule: Rule, other: Rule) -> bool:
    if rule.methods is None or other.methods is None:
        return rule.methods is other.methods
    return not frozenset(rule.methods).isdisjoint(other.methods)


def _check_scopes(rule: Rule, scopes: Iterable[str], catalogue: ScopeCatalogue) -> None:
    try:
        catalogue.check_required(scopes)
    except InvalidValueError as problem:
        raise InvalidValueError(
            f"the rule for {shown(rule.path)} names an {problem}; add the scope to the catalogue, "
            "or change the rule"
        ) from None


def _read_public(public: Iterable[str]) -> list[str]:
    if isinstance(public, str):
        raise InvalidValueError(f"public takes a list of paths: write [{shown(public)}]")
    if not isinstance(public, Iterable):
        raise InvalidValueError(f"public takes a list of paths, not {shown(public)}")
    for path in (paths := [*public]):
        segments = parse_template(path)
        if SEGMENT in segments or REST in segments:
            raise InvalidValueError(
                f"{path!r} is not an exact path; for a template use Rule({path!r}, public=True)"
            )
    return sorted({*paths})
