"""A request described by plain values, and the verdict of the guard on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from keyguard.core.access.answers import RETIRES_FIELD, Response
from keyguard.core.access.credentials import describe_misuse
from keyguard.core.access.decisions import Deny
from keyguard.core.identity.addresses import Client
from keyguard.core.identity.principal import CREDENTIAL_FIELDS, Principal, Request
from keyguard.core.limits.limit import check_cost
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.guard.admission import Admission
from keyguard.request.ledger import charge
from keyguard.request.limits import CurrentLimits
from keyguard.request.ports import RequestGuard
from keyguard.request.state import RequestState

__all__ = ["StatedRequest", "Verdict", "admit", "decide"]


class StatingGuard(RequestGuard, Protocol):
    """A guard of either flavour that takes requests as plain values."""

    @property
    def stated(self) -> Admission:
        """The admission of these requests."""
        ...


class StatedRequest(RequestState):
    """A request described by plain values, in any protocol."""

    def __init__(
        self,
        guard: RequestGuard,
        fields: Sequence[str | bytes],
        *,
        method: str,
        path: str,
        query: str,
        headers: Iterable[tuple[str, str]],
        client: Client,
        cost: int | None,
    ) -> None:
        self.guard = guard
        self.cost = cost
        self._fields = [fields] if isinstance(fields, str | bytes) else fields
        self._method = method
        self._path = path
        self._query = query
        self._headers = [(name.lower(), value) for name, value in headers]
        self._connection = client

    def connection(self) -> Client:
        """Return the address of the connection's other end, and whether it is encrypted."""
        return self._connection

    @property
    def method(self) -> str:
        """The request method."""
        return self._method

    @property
    def path(self) -> str:
        """The path, decoded."""
        return self._path

    @property
    def raw_path(self) -> None:
        """None: the path as it was sent is not known."""
        return None

    def credentials(self) -> Sequence[str | bytes]:
        """Return the values of the ``Authorization`` fields, as received."""
        if self.carriers is None:
            return self._fields
        return self.carriers.read(self.fields_named(self.carriers.fields))

    def fields_named(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the values of some fields by name, given in lower case."""
        found: dict[str, list[str]] = {}
        for name, value in self._headers:
            if name in names:
                found.setdefault(name, []).append(value)
        if "authorization" in names:
            found["authorization"] = [
                field if isinstance(field, str) else field.decode("latin-1")
                for field in self._fields
            ]
        return found

    def request(self) -> Request:
        """Return what the functions of limits see of the request."""
        hidden = {*CREDENTIAL_FIELDS, *self.key_headers}
        names = [name for name, _ in self._headers if name not in hidden]
        headers = {name: ", ".join(values) for name, values in self.fields_named(names).items()}
        return Request(
            method=self._method,
            path=self._path,
            query=self._query,
            headers=headers,
            address=self.address,
        )


class Verdict:
    """The verdict of :meth:`Keyguard.admit <keyguard.Keyguard.admit>` on a request.

    It is true if the request may pass, and false if it must not.

    Args:
        state: The request.
        refusal: Its refusal, or None.

    Attributes:
        refusal: Why the request must not pass; None if it may.
        principal: Who made the request. None on a public path, where a rule leaves a request
            without a key to another login (``also``), and if it was refused.
        limits: Its limits, to see their state and to settle or reserve its cost.
    """

    __slots__ = ("_state", "limits", "principal", "refusal")

    def __init__(self, state: StatedRequest, refusal: Deny | None) -> None:
        self._state = state
        self.refusal = refusal
        allow = None if refusal is not None else state.allow
        self.principal: Principal | None = None if allow is None else allow.principal
        self.limits = CurrentLimits(state)

    def __bool__(self) -> bool:
        return self.refusal is None

    def __repr__(self) -> str:
        return f"<Verdict: {self.principal if self.refusal is None else self.refusal!r}>"

    def fields(self) -> list[tuple[str, str]]:
        """Return the fields for the answer to a request that may pass.

        They give the state of its limits, and the end of its key if the key has a successor.
        """
        state = self._state
        fields = [] if state.receipt is None else state.guard.limit_fields(state.receipt)
        if state.retires is not None:
            fields.append((RETIRES_FIELD, state.retires))
        return fields

    def response(self) -> Response:
        """Return the answer to a request that must not pass: status, fields and body.

        It has the bytes that every adapter sends. Leave the body out where the method is ``HEAD``.

        Raises:
            ConfigurationError: The request may pass, so the service must answer it.
        """
        if self.refusal is None:
            raise ConfigurationError("the request may pass, so the service answers it itself")
        return self._state.guard.respond(self.refusal)


async def admit(
    guard: StatingGuard,
    fields: Sequence[str | bytes],
    *,
    method: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    client: Client,
    cost: int | None,
) -> Verdict:
    """Decide as :meth:`~keyguard.Keyguard.admit` describes. For sync code nothing suspends."""
    misuse = describe_misuse(fields)
    if misuse is not None:
        del fields  # a traceback that passes here must not show the token
        raise InvalidValueError(misuse)
    state = StatedRequest(
        guard,
        fields,
        method=method,
        path=path,
        query=query,
        headers=headers,
        client=client,
        cost=cost,
    )
    del fields, headers
    if cost is not None:
        check_cost(cost)
    return await decide(guard.stated, state)


async def decide(admission: Admission, state: StatedRequest) -> Verdict:
    """Let a request in and charge it, as an adapter does. For sync code nothing in it suspends.

    Args:
        admission: Lets requests in.
        state: The request.
    """
    refusal = await admission.admit(state)
    if refusal is None and state.due:
        refusal = await charge(state)
        if refusal is not None:
            admission.reported(refusal, state)
    return Verdict(state, refusal)
