"""Any ASGI application behind keyguard, without a line of code: the environment says all.

::

    KEYGUARD_APP=notes:app KEYGUARD_CONFIG=keyguard.toml uvicorn keyguard.asgi:app

A server imports this module at its start; nothing else should. The import fails if a variable is
missing or not valid, so that the server does not start.
"""

from __future__ import annotations

import os

from keyguard.adapters._served import asgi_of

__all__ = ["app"]

app = asgi_of(os.environ)
