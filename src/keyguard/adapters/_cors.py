"""CORS layers: keyguard is no such layer, and stands behind the application's own.

Browsers ask before a CORS request, by a preflight without credentials, and read an answer only if
it has the fields of CORS. So the layer that knows the origins has to stand outside: it answers
preflights itself, and adds its fields to refusals.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

from keyguard.adapters._endpoints import each_layer

__all__ = ["has_cors_hook", "is_cors_layer", "warn_of_hidden_refusals"]

_logger = logging.getLogger("keyguard")


def warn_of_hidden_refusals(app: object) -> None:
    """Log a warning if an application has a CORS layer of its own, behind keyguard's middleware.

    Browsers would get 401 for their preflights, and hide keyguard's refusals from scripts.
    """
    for layer in each_layer(app):
        for name in _cors_of(layer):
            _logger.warning(
                "%s stands behind keyguard's middleware: browsers can't read refusals, and their "
                "preflights get 401. Put the CORS layer outside, in front of keyguard's middleware",
                name,
            )
            return


def is_cors_layer(kind: object) -> bool:
    """Tell whether a class of middleware is a CORS layer, such as Starlette's or Django's."""
    return getattr(kind, "__name__", "").upper().startswith("CORS")


def has_cors_hook(app: object) -> bool:
    """Tell whether Flask-CORS or Quart-CORS adds its fields to the answers of an application."""
    hooks: Mapping[object, Iterable[object]] = getattr(app, "after_request_funcs", {})
    return isinstance(hooks, Mapping) and any(
        getattr(hook, "__module__", "").startswith(("flask_cors.", "quart_cors"))
        for registered in hooks.values()
        for hook in registered
    )


def _cors_of(layer: object) -> Iterator[str]:
    """Yield the names of the CORS layers that an application is or holds."""
    # Starlette keeps apart what it will put around its router.
    kept: Iterable[object] = getattr(layer, "user_middleware", ())
    if not hasattr(kept, "__iter__"):
        kept = ()
    for kind in (type(layer), *(getattr(middleware, "cls", None) for middleware in kept)):
        if is_cors_layer(kind):
            yield getattr(kind, "__name__", "")
    if has_cors_hook(layer):
        yield f"the CORS extension of {type(layer).__name__}"
    # Litestar's and Falcon's own.
    if getattr(layer, "cors_config", None) is not None or getattr(layer, "_cors_enable", False):
        yield f"the CORS support of {type(layer).__name__}"
