"""Pages to sign in with a key or by a link, and to sign out."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from keyguard.admin.console.page import Pages, View, sent
from keyguard.admin.console.tokens import CLEARED
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer, Problem
from keyguard.admin.sessions import Sessions
from keyguard.core.access.decisions import AccessDenied, Reason
from keyguard.core.tokens.secret import Secret

_PLAIN_PATH = re.compile(r"/[0-9A-Za-z/_.-]*\Z")
_OF_THE_KEY = frozenset(Reason) - {Reason.STORE_UNAVAILABLE, Reason.TOO_MANY_FAILURES}
_NO_KEY = "This key can't sign in. Use an active key with the scope admin."

PAGES = Pages()
BY_KEY = Pages()
"""The pages of a console to which people may sign in with a key."""


@BY_KEY.form("/sign-in", anonymous=True)
async def sign_in(context: Context) -> Answer:
    """Ask for a key, and begin a session with it."""
    problem = ""
    if not context.call.is_safe:
        token = Secret((await sent(context)).get("key", "").strip())  # no frame holds it otherwise
        try:
            context.fields.append(await Sessions(context.guard).sign_in(context.call, token))
            return View(context).go(_next(context))
        except AccessDenied as denied:
            if denied.decision.reason not in _OF_THE_KEY:
                raise
            problem = _NO_KEY
        except Problem as refused:
            problem = refused.detail
    query = urlencode({"next": f"{context.call.request.root_path}{_next(context)}"})
    return View(context).show(
        "sign_in.html",
        "Sign in",
        problem=problem,
        lead=f"Manage the API keys of {context.guard.settings.realm}.",
        action="/sign-in",
        query=f"?{query}",
        asks=True,
    )


def _next(context: Context) -> str:
    """Return the page to show after signing in: one of the console, whatever the query says."""
    request = context.call.request
    wanted = request.args.get("next", "")
    path = wanted.removeprefix(request.root_path)
    is_own = wanted.startswith(f"{request.root_path}/") and not path.startswith("//")
    is_plain = _PLAIN_PATH.match(path) and "/." not in path
    return path if is_own and is_plain else "/"


@PAGES.form("/sign-in/{code}", anonymous=True)
async def follow(context: Context) -> Answer:
    """Show a button, as mail scanners open links, and begin the session that a link is for."""
    code = context.parameters["code"]
    if await sent(context):
        context.fields.append(await Sessions(context.guard).follow(context.call, code))
        return View(context).go("/")
    return View(context).show(
        "sign_in.html",
        "Sign in",
        lead="This link signs you in once.",
        action=f"/sign-in/{code}",
        query="",
        asks=False,
    )


@PAGES.add("POST", "/sign-out")
async def sign_out(context: Context) -> Answer:
    """End the session."""
    await sent(context)
    cookie = await Sessions(context.guard).sign_out(context.call)
    context.fields += (cookie, CLEARED)
    return View(context).go("/sign-out")


@PAGES.add("GET", "/sign-out", anonymous=True)
async def show_signed_out(context: Context) -> Answer:
    """Tell that the session has ended."""
    return View(context).show(
        "error.html",
        "You are signed out",
        text="Close this window, or sign in again.",
        link=f"{context.call.request.root_path}/",
        link_text="Sign in again",
    )
