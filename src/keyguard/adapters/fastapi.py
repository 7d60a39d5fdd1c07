"""Keyguard in FastAPI: Starlette's middleware, and the present principal as a dependency.

::

    app = FastAPI()
    app.add_middleware(KeyguardMiddleware, guard=guard)
    describe(app)


    @app.post("/v1/inference")
    async def inference(
        principal: Annotated[Principal, Security(keyguard_principal, scopes=["inference:write"])],
    ): ...

The middleware requires a key, whether a route has the dependency or not. The dependency checks
scopes and returns the principal.
"""

from __future__ import annotations

from functools import cached_property

from keyguard.adapters import starlette
from keyguard.exceptions import MissingExtraError
from keyguard.request.protection import Protection

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

    Like :class:`keyguard.adapters.starlette.KeyguardMiddleware`; it also refuses to start if a
    dependency asks for a scope that the guard's catalogue does not know.
    """

    @cached_property
    def _asked(self) -> dict[int, tuple[object, Protection]]:
        """The scopes that the dependencies of routes ask for, by the id of FastAPI's dependant."""
        return {}

    def all_declared(self, node: object) -> Protection:
        """Return all that an endpoint declares, and the scopes that its dependencies ask for."""
        return self._asked_on(node).and_(super().all_declared(node))

    def declared_on(self, route: object, endpoint: object, method: str) -> Protection:
        """Return the protection of an endpoint, with the scopes that its dependencies ask for."""
        return self._asked_on(route).and_(super().declared_on(route, endpoint, method))

    def _asked_on(self, route: object) -> Protection:
        """Return the scopes that the dependencies of a route ask for. The result is kept."""
        dependant = getattr(route, "dependant", None)
        known = self._asked.get(id(dependant))
        if known is None:
            asked = (requirement for _, requirement in asked_by(dependant))
            found = Protection(requirements=tuple(needed for needed in asked if needed.scopes))
            # The dependant stays alive with it, so that no other object gets its id.
            known = self._asked[id(dependant)] = (dependant, found)
        return known[1]
