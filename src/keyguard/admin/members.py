"""The members of bodies and queries: a schema for each, and how its value is read.

A schema is of JSON Schema 2020-12, the part that :func:`_check` knows. The OpenAPI document has the
same schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from werkzeug.datastructures import MultiDict

from keyguard.admin.exchange import Problem
from keyguard.exceptions import InvalidValueError

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Schema: TypeAlias = dict[str, Json]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Default = TypeVar("Default")


@dataclass(frozen=True, slots=True, eq=False)
class Member(Generic[T_co]):
    """A member of a JSON object, or a parameter of a query.

    Args:
        name: Its name.
        schema: The schema of its value, with a description.
        read: Returns the value that the guard takes.
    """

    name: str
    schema: Schema
    read: Callable[[Json], T_co]


@dataclass(frozen=True, slots=True)
class Form:
    """The members that a body or a query takes; any other is refused.

    Args:
        required: The members that it needs.
        optional: The other members.
    """

    required: tuple[Member[object], ...] = ()
    optional: tuple[Member[object], ...] = ()

    @property
    def members(self) -> dict[str, Member[object]]:
        """All members by name."""
        return {member.name: member for member in (*self.required, *self.optional)}

    def schema(self) -> Schema:
        """Return the schema of a body."""
        found: Schema = {
            "type": "object",
            "properties": {name: member.schema for name, member in self.members.items()},
            "additionalProperties": False,
        }
        if self.required:
            found["required"] = [member.name for member in self.required]
        return found

    def read_body(self, body: bytes) -> Values:
        """Return what a body says.

        Raises:
            Problem: The body is no JSON, or does not have this form.
        """
        try:
            content: Json = json.loads(
                body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError):
            raise Problem(400, "The body is not JSON in UTF-8.") from None
        _check(content, self.schema(), "")
        return Values(self, as_object(content))

    def read_query(self, query: MultiDict[str, str]) -> Values:
        """Return what a query says.

        Raises:
            Problem: The query does not have this form.
        """
        members, found = self.members, dict[str, Json]()
        for name, values in query.lists():
            if name not in members:
                raise _invalid(f"?{name}", "is not known here")
            if len(values) > 1:
                raise _invalid(f"?{name}", "is given twice")
            found[name] = _from_text(values[0], members[name].schema)
            _check(found[name], members[name].schema, f"?{name}")
        for member in self.required:
            if member.name not in found:
                raise _invalid(f"?{member.name}", "is missing")
        return Values(self, found)


class Values:
    """The values of a form that was filled in, each read as the guard takes it.

    Args:
        form: The form.
        given: The values by name, as JSON has them, checked.
    """

    def __init__(self, form: Form, given: Mapping[str, Json]) -> None:
        self._form = form
        self._given = given
        self.given()  # it refuses what is malformed before the endpoint begins

    def __contains__(self, member: Member[object]) -> bool:
        return member.name in self._given

    def get(self, member: Member[T], default: Default) -> T | Default:
        """Return the value of a member, or the default where it was not given."""
        return self._read(member) if member.name in self._given else default

    def need(self, member: Member[T]) -> T:
        """Return the value of a member that the form requires."""
        return self._read(member)

    def given(self, **instead: Any) -> dict[str, Any]:
        """Return the values that were given, by name: as a method of the guard takes them.

        Args:
            instead: Values that count whatever was given.
        """
        members = self._form.members.items()
        found = {name: self._read(member) for name, member in members if name in self._given}
        return found | instead

    def _read(self, member: Member[T]) -> T:
        try:
            return member.read(self._given[member.name])
        except InvalidValueError as wrong:
            raise _invalid(f"/{member.name}", str(wrong)) from None


NO_MEMBERS = Form()
NOTHING_GIVEN = Values(NO_MEMBERS, {})


def text(name: str, description: str, *, longest: int = 200, **more: Json) -> Member[str]:
    """Return a member that takes a text."""
    schema: Schema = {"type": "string", "description": description, "maxLength": longest, **more}
    return Member(name, schema, str)


def number(name: str, description: str, least: int, most: int) -> Member[int]:
    """Return a member that takes a whole number."""
    schema: Schema = {
        "type": "integer",
        "description": description,
        "minimum": least,
        "maximum": most,
    }
    return Member(name, schema, _int)


def flag(name: str, description: str) -> Member[bool]:
    """Return a member that takes true or false."""
    return Member(name, {"type": "boolean", "description": description}, bool)


def nullable(member: Member[T]) -> Member[T | None]:
    """Return a member that takes null as well."""
    schema: Schema = {**member.schema, "type": [member.schema["type"], "null"]}
    return Member(member.name, schema, lambda value: None if value is None else member.read(value))


def time(name: str, description: str) -> Member[datetime]:
    """Return a member that takes a time in ISO 8601, with its offset from UTC."""
    schema: Schema = {
        "type": "string",
        "format": "date-time",
        "description": description,
        "maxLength": 40,
    }
    return Member(name, schema, _datetime)


def span(name: str, description: str) -> Member[timedelta]:
    """Return a member that takes a number of seconds."""
    whole = number(name, f"{description}, in seconds", 0, 10**11)
    return Member(name, whole.schema, lambda value: timedelta(seconds=_int(value)))


def texts(name: str, description: str, *, most: int = 1000) -> Member[tuple[str, ...]]:
    """Return a member that takes a list of texts."""
    schema: Schema = {
        "type": "array",
        "items": {"type": "string", "maxLength": 200},
        "maxItems": most,
        "description": description,
    }
    return Member(name, schema, lambda value: tuple(map(str, _list(value))))


def _int(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def as_object(value: Json) -> Schema:
    """Return a value that a schema has shown to be an object."""
    return value if isinstance(value, dict) else {}


def _datetime(value: Json) -> datetime:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise InvalidValueError("is not a time, such as 2030-01-31T00:00:00Z") from None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in pairs:
        if name in found:
            raise Problem(422, "The body names a member twice.", member=name)
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _from_text(value: str, schema: Schema) -> Json:
    """Return the JSON value that a parameter of a query stands for."""
    if schema["type"] == "integer" and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    if schema["type"] == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _check(value: Json, schema: Schema, where: str) -> None:
    """Refuse a value that a schema does not allow.

    Raises:
        Problem: The value has another type, is too long, or has unknown members.
    """
    kind = schema["type"]
    kinds = [str(name) for name in _list(kind)] or [str(kind)]
    if not any(_is_a(value, name) for name in kinds):
        raise _invalid(where, f"takes: {' or '.join(kinds)}")
    if "enum" in schema and value not in _list(schema["enum"]):
        raise _invalid(where, f"takes one of: {', '.join(map(str, _list(schema['enum'])))}")
    match value:
        case str():
            if len(value) > _int(schema.get("maxLength", len(value))):
                raise _invalid(where, f"takes at most {schema['maxLength']} characters")
        case int():
            if (
                not _int(schema.get("minimum", value))
                <= value
                <= _int(schema.get("maximum", value))
            ):
                raise _invalid(where, f"takes {schema['minimum']} to {schema['maximum']}")
        case list():
            if len(value) > _int(schema.get("maxItems", len(value))):
                raise _invalid(where, f"takes at most {schema['maxItems']} items")
            for at, item in enumerate(value):
                _check(item, as_object(schema.get("items")), f"{where}/{at}")
        case dict():
            for name in _list(schema.get("required")):
                if name not in value:
                    raise _invalid(f"{where}/{name}", "is missing")
            known, others = as_object(schema.get("properties")), schema.get("additionalProperties")
            for name, item in value.items():
                inner = known.get(name, others)
                if not isinstance(inner, dict):
                    raise _invalid(f"{where}/{name}", "is not known here")
                _check(item, inner, f"{where}/{name}")
        case _:
            pass


def _is_a(value: Json, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind != "integer" or not isinstance(value, bool))


def _invalid(where: str, why: str) -> Problem:
    return Problem(422, f"{where[:80] or 'The body'} {why}.", pointer=where[:200])
