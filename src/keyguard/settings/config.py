"""The settings of a guard: frozen, and checked once, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from keyguard.exceptions import InvalidValueError
from keyguard.runtime.frames import hides_arguments
from keyguard.settings.checks import settle
from keyguard.settings.fields import Fields

if TYPE_CHECKING:
    from keyguard.settings.options import Options


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Settings(Fields):  # noqa: D101 - it has the docstring of its fields
    __doc__ = Fields.__doc__

    def __post_init__(self) -> None:
        settle(self)

    @classmethod
    @hides_arguments
    def from_env(
        cls, environ: Mapping[str, str] | None = None, /, **overrides: Unpack[Options]
    ) -> Settings:
        """Read settings from the environment.

        ``KEYGUARD_`` and the field's name in upper case sets a field: ``KEYGUARD_REALM``,
        ``KEYGUARD_REQUIRE_HTTPS`` (``true`` or ``false``), ``KEYGUARD_MAX_STALENESS`` and so on.
        White space or commas separate the items of a list (``KEYGUARD_PUBLIC``,
        ``KEYGUARD_TRUSTED_PROXIES``, ``KEYGUARD_IMPORTED_FORMATS``). ``KEYGUARD_FAILURE_LIMIT``
        takes a rate or ``none``. ``KEYGUARD_DEFAULT_LIMITS`` takes rates separated by ``;``, each
        with or without a name: ``100/minute; daily=5000/day``. ``KEYGUARD_SCOPES`` lists the names
        of the catalogue. ``KEYGUARD_PEPPER`` is the pepper ring; ``KEYGUARD_PEPPER_FILE`` names a
        file that holds it instead. ``KEYGUARD_CONFIG`` names a file for other settings, see
        :meth:`from_file`. The command line and the recipes read ``KEYGUARD_URL`` and
        ``KEYGUARD_LIMITER`` to open the stores, and ``keyguard.asgi`` and ``keyguard.wsgi`` also
        ``KEYGUARD_APP``. Another ``KEYGUARD_`` name is refused: it may be a typing error. White
        space around a value does not count.

        Args:
            environ: The variables; the process's environment by default.
            overrides: Fields that are set here, whatever the environment says.

        Raises:
            InvalidValueError: A value has the wrong type, form or range.
            ConfigurationError: A variable is unknown or holds a control character, a file can't be
                read, or two values contradict each other.
        """
        from keyguard.settings.sources import read_environ

        environ = os.environ if environ is None else environ
        types = {setting.name: setting.type for setting in fields(cls)}
        found = read_environ(environ, types, peppers="peppers" not in overrides)
        values = {**found.values}
        values.update(overrides)
        try:
            return cls(**values)
        except InvalidValueError as failure:
            problem = found.placed(failure, overrides)
        raise problem

    @classmethod
    @hides_arguments
    def from_file(
        cls,
        path: str | Path,
        environ: Mapping[str, str] | None = None,
        /,
        **overrides: Unpack[Options],
    ) -> Settings:
        """Read settings from a TOML file, so that configuration alone guards an application.

        ::

            realm = "AIaaS"
            public = ["/healthz"]

            [[rules]]
            path = "/v1/models/{model_id}"
            methods = ["GET"]
            scopes = ["inference:read"]
            limits = ["60/minute"]

        The fields have the names of this class. ``rules`` are tables with the arguments of
        :class:`~keyguard.Rule`, ``catalogue`` is a table of scope and description, and a limit is a
        rate or a table with the arguments of :class:`~keyguard.Limit`. The environment (see
        :meth:`from_env`) overrides the file. Peppers come from the environment only. ``url`` and
        ``limiter`` in the file are not settings: like ``KEYGUARD_URL`` and ``KEYGUARD_LIMITER``,
        they name the stores.

        Args:
            path: The file.
            environ: The variables; the process's environment by default.
            overrides: Fields that are set here, whatever the file and the environment say.

        Raises:
            InvalidValueError: A value has the wrong type, form or range.
            ConfigurationError: The file can't be read, is not TOML or names an unknown setting; a
                variable is unknown or holds a control character; or two values contradict each
                other.
        """
        environ = os.environ if environ is None else environ
        return cls.from_env({**environ, "KEYGUARD_CONFIG": str(path)}, **overrides)


# The method that dataclasses writes, and what it calls, hold the peppers in their locals.
Settings.__init__ = hides_arguments(Settings.__init__)  # type: ignore[method-assign]
