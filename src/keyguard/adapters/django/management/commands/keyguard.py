"""``manage.py keyguard ...``: the command line on the guard of a Django project."""

from __future__ import annotations

import argparse
import sys

from django.core.handlers.base import BaseHandler
from django.core.management.base import BaseCommand, CommandError

from keyguard.adapters.django.setup import read_setup
from keyguard.cli import load_program
from keyguard.exceptions import ConfigurationError, KeyguardError

_NAME = "manage.py keyguard"


class Command(BaseCommand):
    """Runs keyguard's command line."""

    help = "Manage the API keys of this project."

    def run_from_argv(self, argv: list[str]) -> None:
        """Run with the arguments of a shell, which are all keyguard's, also ``--help``."""
        try:
            status = _run(argv[2:])
        except KeyguardError as failure:
            self.stderr.write(str(failure))
            status = 2
        sys.exit(status)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take any arguments, for ``call_command``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: object, arguments: list[str], **__: object) -> None:
        """Run with the arguments of ``call_command``, of which none may be an option first."""
        try:
            status = _run(arguments)
        except KeyguardError as failure:
            raise CommandError(str(failure), returncode=2) from None
        if status:
            raise CommandError(f"{_NAME} failed", returncode=status)


def _run(arguments: list[str]) -> int:
    run = load_program(_NAME)
    guard = read_setup().guard
    if guard is None:
        raise ConfigurationError(
            f"{_NAME} takes a Keyguard: name one in KEYGUARD['guard'], and the AsyncKeyguard in "
            "KEYGUARD['async_guard']"
        )
    # Its middleware is not loaded: the commands only read the URLconf and the settings.
    return run(arguments, name=_NAME, guard=guard, application=BaseHandler())
