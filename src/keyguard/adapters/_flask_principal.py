"""What the proxy of the principal in Flask finds."""

from __future__ import annotations

from keyguard.core.identity.principal import Principal
from keyguard.exceptions import ConfigurationError
from keyguard.request.context import current_principal


class OutsideRequestError(ConfigurationError, RuntimeError):
    """No guarded request is under way.

    It is a RuntimeError, as for Flask's own proxies, because ``flask --app`` asks ``isinstance`` of
    every name of a module.
    """


def find_principal_for_proxy() -> Principal:
    try:
        return current_principal()
    except ConfigurationError as failure:
        raise OutsideRequestError(str(failure)) from failure
