"""Keyguard in FastAPI: Starlette's middleware, and the present principal as a dependency.

::

    app = FastAPI()
    app.add_middleware(KeyguardMiddleware, guard=guard)
    describe(app)


    @app.post("/v1/inference")
    async def inference(
        principal: Annotated[Principal, Security(keyguard_principal, scopes=["inference:write"])],
    ): ...

The middleware asks for the key, whether a route has the dependency or not; the dependency asks for
scopes and says who it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keyguard.adapters import asgi, starlette
from keyguard.adapters._endpoints import each_node
from keyguard.core.http.rules import Rule
from keyguard.exceptions import MissingExtraError
from keyguard.guard import AsyncKeyguard
from keyguard.request.decorators import Protection

try:
    from keyguard.adapters._fastapi_dependency import (
        KeyguardPrincipal,
        asked_by,
        keyguard_principal,
    )
    from keyguard.adapters._fastapi_openapi import describe
except ImportError as missing:
    raise MissingExtraError("keyguard.adapters.fastapi", "fastapi") from missing

__all__ = ["KeyguardMiddleware", "KeyguardPrincipal", "describe", "keyguard_principal"]


class KeyguardMiddleware(starlette.KeyguardMiddleware):
    """Let only requests with a live key through to a FastAPI application.

    Like :class:`keyguard.adapters.starlette.KeyguardMiddleware`; it also refuses to start where a
    dependency asks for a scope that the guard's catalogue does not know.
    """

    def __init__(
        self,
        app: asgi.ASGIApp,
        guard: AsyncKeyguard,
        *,
        public: Iterable[str] | None = None,
        rules: Iterable[Rule] | None = None,
    ) -> None:
        self._asked: dict[int, tuple[Any, Protection]] = {}
        super().__init__(app, guard, public=public, rules=rules)
        catalogue = guard.policy.catalogue
        for node in each_node(app):
            for requirement in self._asked_on(node).requirements:
                if catalogue is not None:
                    catalogue.check_required(requirement.scopes)

    def is_declared(self, node: Any) -> bool:
        """Tell whether scopes or limits are declared on an endpoint, or asked for by a route."""
        return super().is_declared(node) or bool(self._asked_on(node))

    def declared_on(self, route: Any, endpoint: Any, method: str) -> Protection:
        """Return what stands before an endpoint: what its route's dependencies ask for as well."""
        return self._asked_on(route).and_(super().declared_on(route, endpoint, method))

    def _asked_on(self, route: Any) -> Protection:
        """Return what the dependencies of a route ask for, which is worked out once."""
        dependant = getattr(route, "dependant", None)
        known = self._asked.get(id(dependant))
        if known is None:
            asked = (requirement for _, requirement in asked_by(dependant))
            found = Protection(requirements=tuple(one for one in asked if one.scopes))
            # The dependant is held, for the id of an object that is gone may be given again.
            known = self._asked[id(dependant)] = (dependant, found)
        return known[1]
