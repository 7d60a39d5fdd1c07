"""Loads an application that a text names, such as ``service.main:app``."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import traceback
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from keyguard.exceptions import ConfigurationError, KeyguardError, shown


def load_application(name: str) -> object:
    """Import the application that ``module:attribute`` or ``module:factory()`` names.

    A factory may take literals: ``datasette.app:Datasette(files=["data.db"]).app()``. The module
    may be in the present folder. What it prints goes to stderr.

    Args:
        name: The text.

    Raises:
        ConfigurationError: The text does not have this form, the module can't be imported or lacks
            the attribute, or the factory fails.
    """
    module_name, _, expression = name.partition(":")
    node = _parsed(expression)
    if node is None or not all(map(str.isidentifier, module_name.split("."))):
        raise ConfigurationError(
            f"{shown(name)} names no application: write module:attribute, such as "
            "service.main:app, or module:factory()"
        )
    with running_application_code(f"the module {module_name!r}"):
        module = import_module(module_name)
    return _find(node, module)


@contextlib.contextmanager
def running_application_code(subject: str) -> Generator[None]:
    """Run code of the application in the block; send its output to stderr, and report its errors.

    ``subject`` names the code in that report.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyguardError:
        raise  # its message is complete
    except (Exception, SystemExit) as failure:
        cause = str(failure) if isinstance(failure, ImportError) else origin_of(failure)
        if isinstance(failure, ModuleNotFoundError):
            cause += f"; this folder is {str(Path.cwd())!r}: start in the module's, or install it"
        raise ConfigurationError(f"{subject} can't be imported: {cause}") from failure


def takes(function: object, count: int) -> bool:
    """Return whether this can be called with a number of positional arguments, and no others."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # it is written in C, and has no signature
        return True
    return True


def origin_of(failure: BaseException) -> str:
    """Return an error's type and place, without its message, which may hold secrets."""
    place = traceback.extract_tb(failure.__traceback__)[-1]
    file, line = place.filename, place.lineno
    # The traceback of a file that can't be compiled ends where it is imported.
    if isinstance(failure, SyntaxError) and Path(failure.filename or "").is_file():
        file, line = str(failure.filename), failure.lineno
    return f"{type(failure).__name__} at {Path(file).name}:{line}"


def _parsed(expression: str) -> ast.expr | None:
    """Return an attribute, or calls of attributes with literals; None for anything else."""
    try:
        node = part = ast.parse(expression, mode="eval").body
        while not isinstance(part, ast.Name):
            if isinstance(part, ast.Call):
                _arguments(part)
                part = part.func
            elif isinstance(part, ast.Attribute):
                part = part.value
            else:
                return None
    except (SyntaxError, ValueError):
        return None
    return node


def _arguments(call: ast.Call) -> tuple[list[object], dict[str, object]]:
    named = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    return [ast.literal_eval(each) for each in call.args], named


def _find(node: ast.expr, module: ModuleType) -> object:
    """Return the value of an expression of :func:`_parsed` in a module."""
    inside = f"of {module.__name__!r}"
    if isinstance(node, ast.Call):
        factory, name = _find(node.func, module), _spelled(node.func)
        if not callable(factory):
            raise ConfigurationError(f"{name!r} {inside} is not a function: leave out the ()")
        arguments, named = _arguments(node)
        with running_application_code(f"the application that {name}() {inside} makes"):
            return factory(*arguments, **named)
    owner = _find(node.value, module) if isinstance(node, ast.Attribute) else module
    name = _spelled(node)
    attribute = name.rpartition(".")[2]
    if not hasattr(owner, attribute):
        raise ConfigurationError(
            f"the module {module.__name__!r} has no {name!r}: name the attribute that holds the "
            "application"
        )
    found: object = getattr(owner, attribute)
    return found


def _spelled(node: ast.expr) -> str:
    """Return an expression without the arguments of its calls, which may hold secrets."""
    if isinstance(node, ast.Call):
        return f"{_spelled(node.func)}()"
    if isinstance(node, ast.Attribute):
        return f"{_spelled(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
