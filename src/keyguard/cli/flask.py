"""``flask keyguard ...``: the command line on the guard of a Flask application.

Flask loads this module in every application, so nothing else is imported before the command runs.
"""

from __future__ import annotations

import sys

import click
from flask.cli import ScriptInfo, pass_script_info, with_appcontext

from keyguard.cli import load_program
from keyguard.exceptions import MissingExtraError


@click.command(
    "keyguard",
    short_help="Manage the API keys of this application.",
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,  # keyguard's own command line shows the help
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_script_info
@with_appcontext
def command(info: ScriptInfo, arguments: tuple[str, ...]) -> None:
    """Manage the API keys of this application."""
    try:
        run = load_program("flask keyguard")
    except MissingExtraError as missing:
        raise click.ClickException(str(missing)) from None
    from keyguard.adapters.flask import MIDDLEWARE

    application = info.load_app()
    middleware = application.extensions.get(MIDDLEWARE)
    if middleware is None:
        raise click.ClickException(
            "this application has no FlaskKeyguard: add FlaskKeyguard(app, guard)"
        )
    sys.exit(run(arguments, name="flask keyguard", guard=middleware.guard, application=application))
