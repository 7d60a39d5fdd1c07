"""How a call is answered: route, caller, rights, body, endpoint."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

from keyguard.admin.callers import Callers, Members, check_flavour
from keyguard.admin.context import Context, Endpoint
from keyguard.admin.endpoints import Router
from keyguard.admin.exchange import (
    LARGEST_BODY,
    Answer,
    Call,
    Problem,
    problem_answer,
    too_large,
)
from keyguard.admin.headers import protected
from keyguard.admin.members import NOTHING_GIVEN, Form, Values
from keyguard.admin.origins import check_host, host_names
from keyguard.admin.sessions import Caller, ConsoleSession
from keyguard.admin.step_up import check_step_up
from keyguard.core.access.answers import Response
from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.exceptions import (
    ConfigurationError,
    ExceededError,
    InvalidValueError,
    NotFoundError,
    OutdatedError,
    RefusedError,
    StoreError,
)
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.runtime.deadlines import asleep, sleep_never_suspending

_ROOM = "keyguard.admin."

STEP = 0.005
"""Seconds. What does not exist, or is another's, is answered at a multiple of it after the call
came: to read a record takes longer than to find nothing."""


class Application:
    """Answers the calls of both front ends.

    Args:
        guard: The guard whose keys are managed.
        endpoints: The table.
        callers: Finds who calls.
        members: Returns the people of an organization; or None.
        allowed_hosts: The names of the host that it answers to, without ports; None for any.

    Raises:
        ConfigurationError: ``members`` is a coroutine function, and the guard is for sync code; or
            ``allowed_hosts`` is a single text, or has a name with a port.
    """

    api = ""
    """Where the API is below the mount."""

    def __init__(
        self,
        guard: Keyguard | AsyncKeyguard,
        endpoints: Iterable[Endpoint],
        callers: Callers,
        members: Members | None = None,
        allowed_hosts: Iterable[str] | None = None,
    ) -> None:
        check_flavour(guard, "members", members)
        self._allowed_hosts = None if allowed_hosts is None else host_names(allowed_hosts)
        self.guard = guard
        self.endpoints = tuple(endpoints)
        self.router = Router(self.endpoints)
        self._callers = callers
        self._members = members
        self.pause: Callable[[float], Awaitable[None]]
        self.pause = asleep if isinstance(guard, AsyncKeyguard) else sleep_never_suspending

    async def answer(self, call: Call) -> Answer:
        """Answer a call. Over a guard for sync code nothing in it suspends."""
        began = time.perf_counter()
        return protected(await self._attempt(call, began))

    async def _attempt(self, call: Call, began: float) -> Answer:
        try:
            return await self._answer(call)
        except Problem as problem:
            return self.tell(call, problem)
        except (AccessDenied, NotFoundError) as denied:
            unknown = Deny(Reason.OBJECT_NOT_FOUND)
            deny = denied.decision if isinstance(denied, AccessDenied) else unknown
            if deny.reason is Reason.OBJECT_NOT_FOUND:
                await self.pause(until_next_step(time.perf_counter() - began))
            return self.refuse(call, deny)
        except InvalidValueError as wrong:
            return self.tell(call, Problem(422, str(wrong)))
        except RefusedError as refused:
            return self.tell(call, Problem(_refused_with(refused), str(refused)))
        except ConfigurationError as missing:  # it keeps no usage
            return self.tell(call, Problem(501, str(missing)))
        except StoreError as failure:
            cause = failure.with_traceback(_below(failure.__traceback__))
            deny = Deny(Reason.STORE_UNAVAILABLE, cause=cause)
            self.guard.report(deny, address=call.client.address, request=call.request)
            return self.refuse(call, deny)

    def sign_in_again_at(self, call: Call) -> str | None:  # noqa: ARG002 - the console looks at the mount
        """Return the address at which people sign in again, or None."""
        return self._callers.reauthenticate

    def tell(self, call: Call, problem: Problem) -> Answer:  # noqa: ARG002 - the console looks at the path
        """Return the answer to a call that can't be carried out."""
        if problem.status == 204:
            return Response(204, problem.fields, b"")
        return problem_answer(problem)

    def refuse(self, call: Call, deny: Deny) -> Answer:  # noqa: ARG002 - as above
        """Return the answer to a call that is refused, as the guard answers refusals."""
        return self.guard.respond(deny)

    async def _answer(self, call: Call) -> Answer:
        check_host(call, self._allowed_hosts)
        found = self.router.find(call)
        if not isinstance(found, tuple):
            await self._callers.find(call)  # only callers who are let in learn which paths exist
            raise found
        endpoint, parameters = found
        known, session = await self._caller(call, endpoint)
        context = Context(
            guard=self.guard,
            call=call,
            endpoint=endpoint,
            parameters=parameters,
            base=call.request.root_path + self.api,
            known=known,
            session=session,
            reauthenticate=self.sign_in_again_at(call),
            media_type=_media_type(call, endpoint),
            members=self._members,
        )
        context.check_anywhere()
        if endpoint.query is not None:
            context.query = endpoint.query.read_query(call.request.args)
        if endpoint.form is not None:
            context.body = await self._body(call)
            context.form = self._form(context, endpoint.form)
        await check_step_up(context)
        answered = await endpoint.handler(context)
        fields = (*answered.headers, *context.fields)
        return Response(answered.status, fields, answered.body)

    async def _caller(
        self, call: Call, endpoint: Endpoint
    ) -> tuple[Caller | None, ConsoleSession | None]:
        """Return who calls, and by which session; None where the endpoint does not need it."""
        if endpoint.anonymous:
            return None, None
        try:
            return await self._callers.find(call)
        except AccessDenied as denied:
            if endpoint.anyone and denied.decision.reason is Reason.CREDENTIALS_MISSING:
                return None, None
            raise

    async def _body(self, call: Call) -> bytes:
        if (call.request.content_length or 0) > LARGEST_BODY:
            raise too_large()
        return await call.read()

    def _form(self, context: Context, form: Form) -> Values:
        """Return what the body of a call says."""
        if not context.body and not form.required:
            return NOTHING_GIVEN
        if context.call.request.mimetype != "application/json":
            raise Problem(415, "Send the body as application/json.")
        return form.read_body(context.body)


def until_next_step(elapsed: float) -> float:
    """Return how many seconds are left to the next :data:`STEP` after some have passed."""
    return STEP - elapsed % STEP


def _below(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this room, which hold what the caller sent."""
    while traceback is not None and traceback.tb_frame.f_globals["__name__"].startswith(_ROOM):
        traceback = traceback.tb_next
    return traceback


def _refused_with(refused: RefusedError) -> int:
    """Return the status for a call that the present state forbids."""
    if isinstance(refused, OutdatedError):
        return 412
    return 422 if isinstance(refused, ExceededError) else 409


def _media_type(call: Call, endpoint: Endpoint) -> str:
    """Return the media type that an endpoint has and the caller accepts.

    Raises:
        Problem: The endpoint has no media type that the caller accepts.
    """
    if "Accept" not in call.request.headers:
        return endpoint.media_types[0]
    chosen = call.request.accept_mimetypes.best_match(endpoint.media_types)
    if chosen is None:
        raise Problem(406, f"This endpoint can answer in: {', '.join(endpoint.media_types)}.")
    return chosen
