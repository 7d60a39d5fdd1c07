"""Finding an application by its name, ``module:attribute``, as servers do."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

from keyguard.exceptions import ConfigurationError, KeyguardError

__all__ = ["importing", "load_application"]


def load_application(name: str) -> Any:
    """Import an application.

    What its modules print goes to stderr.

    Args:
        name: ``module:attribute``, or ``module:factory()``. The module is looked for in the present
            folder too.

    Raises:
        ConfigurationError: There is none of that name, or it can't be imported.
    """
    module_name, colon, attribute = name.partition(":")
    attribute, call, rest = attribute.partition("()")
    if not colon or not module_name or rest or not _is_dotted(attribute):
        raise ConfigurationError(
            f"{name!r} names no application: write module:attribute, such as service.main:app, or "
            "module:factory()"
        )
    with importing(f"the module {module_name!r}"):
        found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"the module {module_name!r} has no {attribute!r}: name the attribute that holds "
                "the application"
            )
        found = getattr(found, part)
    if call:
        with importing(f"what {attribute}() of {module_name!r} makes"):
            found = found()
    return found


@contextlib.contextmanager
def importing(what: str) -> Generator[None]:
    """Run what an application does when it is imported: it prints to stderr, and may fail.

    Args:
        what: What is imported, as the subject of a sentence.

    Raises:
        ConfigurationError: It fails.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyguardError:
        raise  # says all there is to say
    except (Exception, SystemExit) as failure:
        raise ConfigurationError(f"{what} can't be imported: {_told(failure)}") from failure


def _told(failure: BaseException) -> str:
    if isinstance(failure, ImportError):
        return str(failure)
    # Without the error's own words, in which there may be secrets.
    place = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__} at {Path(place.filename).name}:{place.lineno}"


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
