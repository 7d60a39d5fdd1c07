"""The entrance of an application: admission by the rules of its middleware."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keyguard.adapters._cors import warn_of_hidden_refusals
from keyguard.adapters._endpoints import check_endpoints
from keyguard.adapters._routers import warn_of_escapes
from keyguard.adapters._warm_path import Beginnings, WarmPath
from keyguard.core.http.rules import Rule
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.guard.admission import Admission
from keyguard.request.state import RequestState

__all__ = ["Entrance"]


class Entrance(Admission):
    """Lets requests in for a middleware.

    Args:
        app: The application.
        guard: The guard that decides.
        public: Exact paths that need no key; by default those of the guard's settings.
        rules: What requests need by path and method; by default the rules of the guard's settings.
        is_for_management: Returns whether a request leads to the console or the management API,
            which decide by themselves who may come in; None where neither is mounted.

    Raises:
        ConfigurationError: The limit of a rule can't be counted where the guard counts.
        InvalidValueError: A public path or a rule is malformed, an endpoint requires a scope that
            the guard's catalogue does not know, or a plan gives its limit a rate that the limit's
            strategy can't count.
    """

    def __init__(
        self,
        app: object,
        guard: Keyguard | AsyncKeyguard,
        public: Iterable[str] | None,
        rules: Iterable[Rule] | None,
        is_for_management: Callable[[RequestState], bool] | None = None,
    ) -> None:
        check_endpoints(app, guard.policy)
        self._app, self._hides_refusals = app, warn_of_hidden_refusals(app)
        rule_book = guard.settings.rule_book(public=public, rules=rules)
        warn_of_escapes(app, rule_book)
        super().__init__(guard, rule_book, is_for_management)

    def begin(self) -> None:
        """Warn of what was added to the application after its middleware, now that it is served."""
        if not self._hides_refusals:
            self._hides_refusals = warn_of_hidden_refusals(self._app)

    def warm_path(
        self, public_paths: frozenset[str], management: tuple[str, ...] | None = ()
    ) -> WarmPath:
        """Return the warm path of the middleware.

        Args:
            public_paths: The public paths, as the server spells them.
            management: The prefixes of the paths that may lead to the console or the management
                API; None if any path may.
        """
        if "/" in public_paths:
            public_paths |= {""}  # some routers treat both as the same
        closed = (
            self.rule_book.everywhere
            or self._proxies is not None
            or self._require_https
            or self._tags is not None
            or management is None
            or self._carriers is not None
            or self._tells_answers
        )
        left_alone = Beginnings(public_paths, management) if management else public_paths
        return WarmPath(self._recall, left_alone, closed=closed)
