"""The application of WSGI servers as a Flask application, with the proxy in reach of gevent."""

from __future__ import annotations

import os

from flask import Flask

from keyguard import Keyguard
from keyguard.adapters.flask import FlaskKeyguard, current_principal
from tests.servers.notes import BARE, FOLDER, settings, store_url
from tests.servers.served_wsgi import service

__all__ = ["app", "current_principal"]

app = Flask("served")
app.wsgi_app = service  # type: ignore[method-assign]
if not os.environ.get(BARE):
    FlaskKeyguard(app, Keyguard(store_url(os.environ[FOLDER]), settings=settings()))
