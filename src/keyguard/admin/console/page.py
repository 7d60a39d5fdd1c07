"""What all pages share: who looks, what they may do, how a page is answered and a form is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from werkzeug.datastructures import MultiDict

from keyguard.admin.console.render import rendered
from keyguard.admin.console.static import static_path
from keyguard.admin.context import Context, unknown
from keyguard.admin.csrf import check_form, check_origin, form_token
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Call, Problem, answer, settled
from keyguard.admin.rights import Right, rights_of
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.keys.values import FAMILY_ID
from keyguard.guard import AsyncKeyguard, Keyguard

NOTICES = {
    "created": "The organization was created.",
    "saved": "The changes were saved.",
    "revoked": "It was revoked.",
    "stored": "Good. The token is not shown again.",
    "approved": "The request was approved.",
    "counted": "Your approval counts.",
    "asked": "The request was sent. You see here what is decided.",
    "denied": "The request was denied.",
    "rescinded": "The approval was rescinded.",
    "withdrawn": "The request was withdrawn.",
    "disabled": "The organization is disabled. None of its keys works.",
    "enabled": "The organization is enabled. Its keys work again.",
}
"""What a page says after a form did its work, by the parameter ``done``."""

OUTDATED = "Somebody has changed it meanwhile. Here it is as it is now: make your change again"
"""What a form says that was made from another version of its record."""

_MOST_FIELDS = 2000
_LONGEST_VERSION = 10


def pages() -> Table:
    """Return a table for pages and the targets of their forms."""
    return Table(query=None, media_types=("text/html",))


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

    def query(self, name: str, default: str = "") -> str:
        """Return a parameter of the query."""
        return self.context.call.request.args.get(name, default)

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
            listed = await settled(
                self.context.guard.keys.list(organization=self.owner.id, family=family)
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
            "can": frozenset[str](),
            "now": self.now,
            "parties": dict[str, Key](),
            "zone": self.zone,
            "token": partial(form_token, context),
        }
        text = rendered(template, values | data)
        status = status or (422 if problem else 200)
        return answer(status, "text/html; charset=utf-8", text.encode())

    def ask(
        self,
        title: str,
        action: str,
        submit: str,
        *,
        back: str,
        section: str,
        problem: str = "",
        status: int | None = None,
        lead: str = "",
        hidden: Iterable[tuple[str, str]] = (),
        listed: Iterable[str] = (),
        fields: Iterable[Mapping[str, object]] = (),
        harmful: bool = False,
    ) -> Answer:
        """Return a page with one form.

        Args:
            title: Its title and heading.
            action: The path that takes the form.
            submit: What is on its button.
            back: The path to go to instead.
            section: The entry of the navigation that it belongs to.
            problem: What is wrong with the form that was sent, in a sentence.
            status: As in :meth:`show`.
            lead: What the form does, in a sentence.
            hidden: The names and values of fields that nobody fills in.
            listed: What it is done to, if that is several.
            fields: The arguments of the template's macro ``field`` for each field.
            harmful: Whether it ends something.
        """
        return self.show(
            "action.html",
            title,
            section=section,
            problem=problem,
            status=status,
            action=action,
            submit=submit,
            back=back,
            lead=lead,
            hidden=hidden,
            listed=listed,
            fields=fields,
            harmful=harmful,
        )

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
        role = "operator" if known.operator else self._role(known)
        return Looker(known.name or known.id, role, signs_out=signs_out)

    def _role(self, person: Person) -> str:
        if self.organization is None:
            return ""
        return person.role_in(self.organization.id, self.organization.slug) or ""

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


async def sent(context: Context) -> MultiDict[str, str]:
    """Return the fields of the form that was sent, once its token is checked.

    Raises:
        Problem: It is no form, or its token does not fit.
    """
    if context.sent is not None:
        return context.sent
    request = context.call.request
    if request.mimetype != "application/x-www-form-urlencoded":
        raise Problem(415, "Send the form as a browser does.")
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
