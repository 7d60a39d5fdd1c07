"""What would become of a request with a token."""

from __future__ import annotations

from keyguard.admin.context import Context
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, json_answer
from keyguard.admin.members import Form, flag, text
from keyguard.admin.rights import Right, rights_of
from keyguard.core.management.json_forms import fields_json

TOKEN = text("token", "The whole token", longest=4096)
METHOD = text("method", "The method of the request", longest=20)
PATH = text("path", "The path of the request, without its query", longest=2000)
ADDRESS = text("address", "The address of the client; without it, networks are not checked")
SECURE = flag("secure", "Whether the request comes over HTTPS; true by default")

ENDPOINTS = Table()


@ENDPOINTS.add(
    "POST",
    "/check",
    Right.CHECK,
    form=Form(required=(TOKEN, METHOD, PATH), optional=(ADDRESS, SECURE)),
    answers={200: "TokenCheck"},
)
async def check_token(context: Context) -> Answer:
    """Tell how a request with a token would be decided, and charge nothing."""
    form, guard = context.form, context.guard
    rule = guard.settings.rule_book().find(form.need(PATH), form.need(METHOD))
    check = await context.management.keys.check_token(
        form.need(TOKEN),
        rule,
        address=form.get(ADDRESS, None),
        secure=form.get(SECURE, True),
        within=lambda owner: Right.CHECK in rights_of(context.caller, owner),
    )
    return json_answer(
        200,
        {
            "allowed": check.reason is None,
            "reason": check.reason,
            "key": check.key_id,
            "steps": [fields_json(step, ("name", "passed", "detail")) for step in check.steps],
        },
    )
