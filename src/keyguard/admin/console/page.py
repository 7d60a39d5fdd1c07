"""What all pages share: who looks, what they may do, how a page is answered and a form is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from werkzeug.datastructures import MultiDict

from keyguard.admin.console.form_tokens import check_form, form_token
from keyguard.admin.console.render import rendered
from keyguard.admin.console.static import static_path
from keyguard.admin.context import Context, Handler, unknown
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Call, Problem, answer
from keyguard.admin.origins import check_origin
from keyguard.admin.rights import Right, rights_of
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.values import FAMILY_ID
from keyguard.exceptions import InvalidValueError, RefusedError
from keyguard.guard import AsyncKeyguard, Keyguard

NOTICES = {
    "created": "The organization was created.",
    "saved": "The changes were saved.",
    "revoked": "It was revoked.",
    "stored": "The token will not be shown again.",
    "approved": "The request was approved.",
    "counted": "Your approval was recorded.",
    "asked": "The request was sent. This page will show the decision.",
    "denied": "The request was denied.",
    "rescinded": "The approval was rescinded.",
    "withdrawn": "The request was withdrawn.",
    "disabled": "The organization is disabled. None of its keys works.",
    "enabled": "The organization is enabled. Its keys work again.",
}
"""What a page says after a form did its work, by the parameter ``done``."""

OUTDATED = "Somebody else has changed this. It is shown as it is now: make your change again"
"""What a form says that was made from another version of its record."""

REFUSALS = (InvalidValueError, RefusedError)
"""What a form answers by showing itself again, with the reason."""

_MOST_FIELDS = 2000
_LONGEST_VERSION = 10


class Pages(Table):
    """The pages on one subject, and what takes their forms."""

    def __init__(self) -> None:
        super().__init__(query=None, media_types=("text/html",))

    def form(
        self,
        path: str,
        right: Right | None = None,
        *,
        target: str = "",
        reaches_far: Callable[[Context], Awaitable[bool]] | None = None,
        page: str = "",
        **more: bool,
    ) -> Callable[[Handler], Handler]:
        """Declare the function that follows as a page with a form, and as what takes the form.

        Args:
            path: The path of the page.
            right: As :class:`~keyguard.admin.endpoints.Endpoint` has it.
            target: The path that takes the form; by default that of the page.
            reaches_far: Which forms take a recent sign-in, as the endpoint has it.
            page: The path to come back to after that sign-in; by default that of the page.
            more: Other arguments of both endpoints, by name.
        """

        def declare(handler: Handler) -> Handler:
            self.add("GET", path, right, **more)(handler)
            step_up = {"reaches_far": reaches_far, "page": page or path}
            return self.add("POST", target or path, right, **step_up, **more)(handler)

        return declare


class Looker(NamedTuple):
    """Who looks at a page.

    Args:
        name: The name for people.
        role: What they are in the organization of the page.
        signs_out: Whether the console itself signed them in.
    """

    name: str
    role: str
    signs_out: bool


@dataclass(frozen=True, slots=True)
class View:
    """A page in the making.

    Args:
        context: The call.
        organization: The organization that the page is about, or None.
    """

    context: Context
    organization: Organization | None = None

    @property
    def now(self) -> datetime:
        """The time."""
        return self.context.guard.now()

    @property
    def owner(self) -> Organization:
        """The organization, of a page that is about one."""
        if self.organization is None:
            raise unknown()
        return self.organization

    @property
    def zone(self) -> str:
        """The time zone in which times are written."""
        return "UTC" if self.organization is None else self.organization.time_zone

    @property
    def home(self) -> str:
        """The path of the organization."""
        return "" if self.organization is None else f"/organizations/{self.organization.slug}"

    @property
    def rights(self) -> frozenset[Right]:
        """What the caller may do in the organization."""
        if self.organization is None or self.context.known is None:
            return frozenset()
        rights = rights_of(self.context.known, self.organization)
        # A key holds no keys, and asks for none on a page.
        return rights if self.context.person else rights - {Right.OWN_KEYS, Right.ASK}

    @property
    def key_rights(self) -> frozenset[str]:
        """What the caller may do with the organization's keys, as the templates name it."""
        rights = self.rights
        can = {"issue", "revoke"} if Right.WRITE_KEYS in rights else set[str]()
        return frozenset(can | ({"ask"} if Right.ASK in rights else set()))

    def query(self, name: str) -> str:
        """Return a parameter of the query; "" if it is not given."""
        return self.context.call.request.args.get(name, "")

    @property
    def notice(self) -> str:
        """What the page says after a form did its work."""
        return NOTICES.get(self.query("done"), "")

    def next_page(self, after: str | None) -> str | None:
        """Return the link to the next page of a list, with the filters of this one."""
        if after is None:
            return None
        given = {k: v for k, v in self.context.call.request.args.items() if k != "done"}
        return f"?{urlencode(given | {'after': after})}"

    async def keys_in(self, requests: Iterable[KeyRequest]) -> dict[str, Key]:
        """Return the newest key of each family that made or decided one of the requests."""
        if Right.READ_KEYS not in self.rights:
            return {}
        parties = {
            name for request in requests for name in (request.requester, *request.decided_by)
        }
        found: dict[str, Key] = {}
        for family in filter(FAMILY_ID.match, parties):
            listed = await self.context.management.keys.list(
                organization=self.owner.id, family=family
            )
            if listed.items:
                found[family] = listed.items[-1]
        return found

    def show(
        self,
        template: str,
        title: str,
        *,
        section: str = "",
        problem: str = "",
        status: int | None = None,
        **data: object,
    ) -> Answer:
        """Return the page.

        Args:
            template: Its template.
            title: Its title and heading.
            section: The entry of the navigation that it belongs to.
            problem: What is wrong with the form that was sent, in a sentence.
            status: The status code; by default 422 if something is wrong, else 200.
            data: What the template shows besides.
        """
        context = self.context
        values: dict[str, object] = {
            **frame(context.call, context.guard),
            "title": title,
            "section": section,
            "organization": self.organization,
            "home": self.home,
            "caller": self._looker(),
            "places": self._places(),
            "several": len(organizations_of(context.known)) != 1,
            "notice": self.notice,
            "problem": problem and f"{problem[0].upper()}{problem[1:].rstrip('.')}.",
            "lead": "",
            "can": frozenset[str](),
            "now": self.now,
            "parties": dict[str, Key](),
            "zone": self.zone,
            "token": partial(form_token, context),
        }
        text = rendered(template, values | data)
        status = status or (422 if problem else 200)
        return answer(status, "text/html; charset=utf-8", text.encode())

    def ask(self, title: str, action: str, submit: str, *, back: str, **data: Any) -> Answer:
        """Return a page with one form.

        Args:
            title: Its title and heading.
            action: The path that takes the form.
            submit: What is on its button.
            back: The path to go to instead.
            data: What :meth:`show` takes besides, and for the template: a sentence as ``lead``,
                ``hidden`` names and values, what is ``listed``, the arguments of its macro
                ``field`` for each of the ``fields``, and whether it is ``harmful``.
        """
        form: dict[str, Any] = {"action": action, "submit": submit, "back": back}
        form |= {"hidden": (), "listed": (), "fields": (), "harmful": False}
        return self.show("action.html", title, **form | data)

    def go(self, path: str, done: str = "") -> Answer:
        """Return the redirection to a page, after a form did its work."""
        base = self.context.call.request.root_path
        query = f"?done={done}" if done else ""
        return answer(303, "text/plain", b"", [("Location", f"{base}{path}{query}")])

    def _looker(self) -> Looker | None:
        known, signs_out = self.context.known, self.context.session is not None
        if isinstance(known, Principal):
            return Looker(f"key {known.key_id}", "", signs_out=signs_out)
        if known is None:
            return None
        role = role_of(known, self.organization)
        return Looker(known.name or known.id, role, signs_out=signs_out)

    def _places(self) -> list[tuple[str, str]]:
        """Return the navigation: names and paths."""
        home, rights = self.home, self.rights
        places = (
            ("Overview", "", Right.READ_KEYS),
            ("Keys", "/keys", Right.READ_KEYS),
            ("Key requests", "/requests", Right.READ_REQUESTS),
            ("Usage", "/usage", Right.READ_USAGE),
            ("Audit", "/audit", Right.READ_AUDIT),
            ("Limits", "/limits", Right.READ_KEYS),
            ("Members", "/members", Right.READ_ORGANIZATION),
            ("Organization", "/settings", Right.READ_ORGANIZATION),
            ("My keys", "/mine", Right.OWN_KEYS),
        )
        return [(name, f"{home}{path}") for name, path, right in places if right in rights]


def frame(call: Call, guard: Keyguard | AsyncKeyguard) -> dict[str, object]:
    """Return what every page needs, also one for nobody known."""
    base = call.request.root_path
    return {
        "base": base,
        "realm": guard.settings.realm,
        "static": partial(static_path, base),
        "organization": None,
        "caller": None,
        "notice": "",
        "problem": "",
    }


def organizations_of(known: Person | Principal | None) -> tuple[str, ...]:
    """Return the organizations that a caller is said to belong to; none for an operator."""
    if isinstance(known, Principal):
        return (known.organization,)
    return () if known is None or known.operator else tuple(known.roles)


def role_of(person: Person, organization: Organization | None) -> str:
    """Return what a person is in an organization, or everywhere; "" for nothing."""
    if person.operator:
        return "operator"
    role = organization and person.role_in(organization.id, organization.slug)
    return role or ""


async def view_of(context: Context) -> View:
    """Return the view of a page that is about the organization of the path.

    Raises:
        AccessDenied: The organization does not exist, or the caller may not know of it.
        Problem: The caller may not do this there.
    """
    return View(context, await context.organization())


async def sent(context: Context) -> MultiDict[str, str]:
    """Return the fields of the form that was sent, once its token is checked; none if none was.

    Raises:
        Problem: The body is no form, or its token is not valid.
    """
    if context.call.is_safe:
        return MultiDict()
    if context.sent is not None:
        return context.sent
    request = context.call.request
    if request.mimetype != "application/x-www-form-urlencoded":
        raise Problem(415, "Send the form as application/x-www-form-urlencoded.")
    check_origin(context.call)
    body = await context.call.read()
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Problem(400, "The form can't be read.") from None
    fields: MultiDict[str, str] = MultiDict(pairs)
    check_form(context, f"{request.root_path}{request.path}", fields.get("csrf", ""))
    context.sent = fields
    return fields


def version_of(text: str) -> int:
    """Return the version that a form was made from; 0, which no record has, if it names none."""
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_VERSION else 0
