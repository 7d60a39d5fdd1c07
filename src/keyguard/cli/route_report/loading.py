"""Loads an application by its name, ``module:attribute``, as servers do."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Generator
from pathlib import Path

from keyguard.exceptions import ConfigurationError, KeyguardError


def load_application(name: str) -> object:
    """Import an application. What its modules print goes to stderr.

    Args:
        name: ``module:attribute``, or ``module:factory()``. The present folder is searched for the
            module too.

    Raises:
        ConfigurationError: The name has another form, there is no such module or attribute, or the
            import fails.
    """
    module_name, colon, attribute = name.partition(":")
    attribute, call, rest = attribute.partition("()")
    if not colon or not module_name or rest or not _is_dotted(attribute):
        raise ConfigurationError(
            f"{name!r} names no application: write module:attribute, such as service.main:app, or "
            "module:factory()"
        )
    with running_application_code(f"the module {module_name!r}"):
        found: object = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"the module {module_name!r} has no {attribute!r}: name the attribute that holds "
                "the application"
            )
        found = getattr(found, part)
    if not call:
        return found
    with running_application_code(f"the application that {attribute}() of {module_name!r} makes"):
        if not callable(found):
            raise ConfigurationError(
                f"{attribute!r} of {module_name!r} is not a function: leave out the ()"
            )
        return found()


@contextlib.contextmanager
def running_application_code(subject: str) -> Generator[None]:
    """Run code of the application in the block: send its output to stderr, report its failure.

    Args:
        subject: What is imported, as the subject of a sentence.

    Raises:
        ConfigurationError: The code fails.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyguardError:
        raise  # its message is complete
    except (Exception, SystemExit) as failure:
        raise ConfigurationError(f"{subject} can't be imported: {_cause(failure)}") from failure


def _cause(failure: BaseException) -> str:
    if isinstance(failure, ImportError):
        return str(failure)
    # Without the error's own message, which may hold secrets.
    place = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__} at {Path(place.filename).name}:{place.lineno}"


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
