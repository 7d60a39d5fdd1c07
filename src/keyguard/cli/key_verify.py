"""``keyguard key verify``: whether a token works."""

from __future__ import annotations

import typer

from keyguard.cli.options import HASHED_STORE, Common, with_options
from keyguard.cli.output import complain, emit_json
from keyguard.cli.terminal import details, status_word
from keyguard.cli.token_io import authenticate, refusal_words, refuse_arguments
from keyguard.cli.wording import scope_list
from keyguard.core.access.decisions import Allow, Reason
from keyguard.core.keys.records import Key
from keyguard.core.management.json_forms import fields_json


@with_options(*HASHED_STORE)
def verify(common: Common) -> None:
    """Check whether a token works. It is read from stdin, or from a hidden prompt."""
    refuse_arguments(common)
    with common.guard(looks_up=True) as guard:
        decision = authenticate(common, guard)
        if isinstance(decision, Allow):
            key, scopes = guard.keys.get(decision.principal.key_id), decision.principal.scopes
            return _show_active(common, key, scopes)
        if decision.reason is Reason.ADDRESS_NOT_ALLOWED and decision.key_id is not None:
            # The token works from some networks, and a command has no client address.
            key = guard.keys.get(decision.key_id)
            return _show_active(common, key, key.scopes)
        prefix = guard.settings.prefix
    if common.as_json:
        emit_json({"active": False, "reason": decision.reason.value, "id": decision.key_id})
    else:
        complain(refusal_words(decision, prefix))
    raise typer.Exit(1)


def _show_active(common: Common, key: Key, scopes: frozenset[str]) -> None:
    common.show(
        {
            "active": True,
            **fields_json(key, ("id", "organization", "scopes", "allowed_networks")),
            "scopes": sorted(scopes),
        },
        details(
            [
                ("Status", status_word("active")),
                ("Key", key.id),
                ("Organization", key.organization),
                ("Scopes", scope_list(scopes)),
                ("Networks", ", ".join(key.allowed_networks)),
            ]
        ),
    )
