"""The routes of a Flask application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from keyguard.cli.route_report.route import Place, Route, read_methods, read_segments
from keyguard.request.protection import protection_of

# Werkzeug's: <converter(arguments):name>; converter and arguments are optional.
_PARAMETER = re.compile(r"<(?:(?P<converter>[A-Za-z_]\w*)(?:\(.*?\))?:)?[A-Za-z_]\w*>")


def read(app: Any, place: Place) -> Iterator[Route]:
    """Give the routes of a Flask application."""
    for rule in app.url_map.iter_rules():
        answered = ["OPTIONS"] if getattr(rule, "provide_automatic_options", False) else []
        yield Route(
            place=place,
            path=rule.rule,
            segments=read_segments(rule.rule, _PARAMETER, partial(_takes_slashes, app)),
            methods=read_methods(rule.methods, answered=answered),
            protection=partial(protection_of, app.view_functions.get(rule.endpoint)),
        )


def _takes_slashes(app: Any, found: re.Match[str]) -> bool:
    converter = app.url_map.converters.get(found["converter"] or "default")
    return not getattr(converter, "part_isolating", False)
