"""Finds the CORS layers of an application. keyguard must stand behind them.

Before a CORS request, a browser sends a preflight without credentials. It shows an answer to
scripts only if it has the fields of CORS. So the CORS layer must stand outside keyguard: it answers
preflights, and adds its fields to refusals.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType

from keyguard.adapters._endpoints import each_node

__all__ = ["has_cors_hook", "is_cors_layer", "warn_of_hidden_refusals"]

_logger = logging.getLogger("keyguard")


def warn_of_hidden_refusals(app: object) -> bool:
    """Log a warning if an application has a CORS layer of its own, behind keyguard's middleware.

    With that order, browsers get 401 for their preflights, and hide keyguard's refusals from
    scripts.

    Returns:
        Whether there is such a layer.
    """
    for layer in _each_part(app):
        for name in _cors_of(layer):
            _logger.warning(
                "%s stands behind keyguard's middleware: browsers can't read refusals, and their "
                "preflights get 401. Put the CORS layer outside, in front of keyguard's middleware",
                name,
            )
            return True
    return False


def is_cors_layer(kind: object) -> bool:
    """Return whether a class of middleware is a CORS layer, such as Starlette's or Django's."""
    return getattr(kind, "__name__", "").upper().startswith("CORS")


def has_cors_hook(app: object) -> bool:
    """Return whether Flask-CORS or Quart-CORS adds fields to the answers of an application."""
    hooks: Mapping[object, Iterable[object]] = getattr(app, "after_request_funcs", {})
    return isinstance(hooks, Mapping) and any(
        getattr(getattr(hook, "func", hook), "__module__", "").startswith(
            ("flask_cors.", "quart_cors")
        )
        for registered in hooks.values()
        for hook in registered
    )


def _each_part(app: object) -> Iterator[object]:
    """Yield the parts of an application, also those that do not name the next part ``app``."""
    # Quart's application is one of its methods. Flask's is as well, but FlaskKeyguard lets
    # Flask-CORS answer.
    owner = getattr(app, "__self__", None)
    yield from each_node(owner if hasattr(owner, "asgi_app") else app)
    # Django wraps each middleware in a function.
    wrapped: object = getattr(app, "_middleware_chain", None)
    while isinstance(wrapped, FunctionType):
        layer = getattr(wrapped, "__wrapped__", None)
        yield layer
        wrapped = getattr(layer, "get_response", None)


def _cors_of(layer: object) -> Iterator[str]:
    """Yield the names of the CORS layers that a part of an application is or holds."""
    kinds: list[object] = [type(layer)]
    # Starlette and Falcon keep separately the middleware that they will put around their routers.
    for name in ("user_middleware", "_unprepared_middleware"):
        kept: Iterable[object] = getattr(layer, name, ())
        if hasattr(kept, "__iter__"):
            kinds += [getattr(middleware, "cls", type(middleware)) for middleware in kept]
    for kind in kinds:
        if is_cors_layer(kind):
            yield getattr(kind, "__name__", "")
    if has_cors_hook(layer):
        yield f"the CORS extension of {type(layer).__name__}"
    if getattr(layer, "cors_config", None) is not None:  # Litestar's own
        yield f"the CORS support of {type(layer).__name__}"
