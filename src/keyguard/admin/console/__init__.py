"""The console: server-rendered pages under the mount, and the API below them.

Each module has the pages on one subject, in its table ``PAGES``; all of them are joined here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus

from keyguard.admin.api import ENDPOINTS
from keyguard.admin.application import Application
from keyguard.admin.callers import Callers, Members
from keyguard.admin.console import (
    key,
    keys,
    members,
    organization,
    organizations,
    request,
    requests,
    settings,
    sign_in,
    usage,
)
from keyguard.admin.console.page import Pages, frame
from keyguard.admin.console.render import rendered
from keyguard.admin.console.static import static_files
from keyguard.admin.context import Context, Endpoint, unknown
from keyguard.admin.exchange import Answer, Call, Problem, answer
from keyguard.admin.step_up import StaleSignIn, sign_in_link
from keyguard.core.access.answers import Response
from keyguard.core.access.decisions import Deny, Reason
from keyguard.guard import AsyncKeyguard, Keyguard

API = "/api/v1"
"""Where the API is below the console's mount."""

_YEAR = "public, max-age=31536000, immutable"


_FILES = Pages()


@_FILES.add("GET", "/static/{name}", anonymous=True, media_types=("text/css", "text/javascript"))
async def serve_static(context: Context) -> Answer:
    """Return the style sheet or the module, by a name that changes with the content."""
    for file in static_files().values():
        if file.name == context.parameters["name"]:
            headers = (
                ("Content-Type", file.media_type),
                ("Content-Length", str(len(file.content))),
                ("Cache-Control", _YEAR),
            )
            return Response(200, headers, file.content)
    raise unknown()


PAGES: tuple[Endpoint, ...] = (
    *_FILES,
    *organizations.PAGES,
    *organization.PAGES,
    *settings.PAGES,
    *keys.PAGES,
    *key.PAGES,
    *requests.PAGES,
    *request.PAGES,
    *usage.PAGES,
    *members.PAGES,
    *sign_in.PAGES,
)

_TEXTS = {
    401: "Sign in to see this page.",
    403: "You may not do this.",
    404: "There is no such page, or you may not see it.",
    429: "There were too many attempts. Wait a minute, and try again.",
    503: "The keys can't be reached at the moment. Nothing was changed. Try again.",
}
_SIGNED_IN_ELSEWHERE = (
    "The application that this console is a part of signs people in: sign in there, and come back."
)


class ConsoleApplication(Application):
    """Answers calls of pages with pages, and those of the API with JSON.

    Args:
        guard: The guard whose keys are managed.
        callers: Finds who calls.
        key_sign_in: Whether people may sign in with a key that has ``admin``.
        members: Returns the people of an organization; or None.
        allowed_hosts: The names of the host that it answers to, without ports; None for any.

    Raises:
        ConfigurationError: As :class:`~keyguard.admin.application.Application` says.
    """

    api = API

    def __init__(
        self,
        guard: Keyguard | AsyncKeyguard,
        callers: Callers,
        *,
        key_sign_in: bool,
        members: Members | None = None,
        allowed_hosts: Iterable[str] | None = None,
    ) -> None:
        api = (replace(endpoint, path=self.api + endpoint.path) for endpoint in ENDPOINTS)
        by_key = sign_in.BY_KEY if key_sign_in else ()
        super().__init__(guard, (*PAGES, *by_key, *api), callers, members, allowed_hosts)
        self._sign_in_url = callers.reauthenticate
        self._key_sign_in = key_sign_in

    def sign_in_again_at(self, call: Call) -> str | None:
        """Return the host's page, or else the console's own if keys sign in there."""
        own = f"{call.request.root_path}/sign-in" if self._key_sign_in else None
        return super().sign_in_again_at(call) or own

    def tell(self, call: Call, problem: Problem) -> Answer:
        """Return a page, or problem details below the API."""
        if _is_of_api(call) or problem.status == HTTPStatus.NO_CONTENT:
            return super().tell(call, problem)
        link = problem.url if isinstance(problem, StaleSignIn) else None
        title = str(problem.members.get("title", ""))
        return self._error(call, problem.status, problem.detail, problem.fields, link, title)

    def refuse(self, call: Call, deny: Deny) -> Answer:
        """Return a page, or what the guard answers below the API."""
        answered = super().refuse(call, deny)
        if _is_of_api(call):
            return answered
        status = answered.status
        fields = [field for field in answered.headers if field[0] in ("Retry-After", "Allow")]
        if deny.reason is Reason.OBJECT_NOT_FOUND:
            status = HTTPStatus.NOT_FOUND
        text = _TEXTS.get(status, "This can't be done.")
        if deny.reason is not Reason.CREDENTIALS_MISSING:
            return self._error(call, status, text, fields)
        base = call.request.root_path
        # Only a page that there is: another path may be a link with a slash too many.
        is_page = call.is_safe and isinstance(self.router.find(call), tuple)
        page = f"{base}{call.request.path if is_page else '/'}"
        if self._key_sign_in:
            link = sign_in_link(f"{base}/sign-in", page)
            return answer(303, "text/plain", b"", [("Location", link)])
        if self._sign_in_url is None:
            return self._error(call, status, f"{text} {_SIGNED_IN_ELSEWHERE}", fields, "")
        return self._error(call, status, text, fields, sign_in_link(self._sign_in_url, page))

    def _error(
        self,
        call: Call,
        status: int,
        text: str,
        fields: Iterable[tuple[str, str]],
        link: str | None = None,
        title: str = "",
    ) -> Answer:
        """Return the page of an error; ``link`` is where to sign in, "" for a page without link."""
        phrase = "Sign in" if status == HTTPStatus.UNAUTHORIZED else HTTPStatus(status).phrase
        shown = frame(call, self.guard) | {
            "title": title or phrase,
            "text": text,
            "link": f"{call.request.root_path}/" if link is None else link,
            "link_text": "Sign in" if link else "Go to the start",
        }
        body = rendered("error.html", shown)
        return answer(status, "text/html; charset=utf-8", body.encode(), fields)


def _is_of_api(call: Call) -> bool:
    return call.request.path.startswith(f"{API}/")
