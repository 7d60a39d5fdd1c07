"""``keyguard explain``: what decides on one request, and whether a key would be let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from keyguard.cli.options import HASHED_STORE, Common, option, with_options
from keyguard.cli.routes import MANAGEMENT_DECIDES, as_json, limit_words
from keyguard.cli.terminal import details
from keyguard.cli.token_io import read_token
from keyguard.core.access.answers import detail_of
from keyguard.core.access.decisions import Allow, Deny
from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import Requirement, ScopeGrant, parse_granted
from keyguard.core.texts import escaped
from keyguard.exceptions import InvalidValueError

if TYPE_CHECKING:
    from keyguard.cli.route_report.explanation import Explanation


@with_options(*HASHED_STORE)
def explain(
    common: Common,
    method: str = typer.Argument(..., metavar="METHOD", help="The request method, such as GET."),
    path: str = typer.Argument(..., metavar="PATH", help="The path as a client sends it."),
    name: str | None = typer.Argument(
        None,
        metavar="[MODULE:APP]",
        help="The application, as for 'keyguard routes'. Without it, the rules of the settings.",
    ),
    scope: list[str] = typer.Option(
        [], "--scope", help="Say whether a key with this scope would be let in. May be repeated."
    ),
    organization: str | None = option(
        "ORG", "Show the limits on the plan of this organization, by id or slug.", "--org"
    ),
    token_stdin: bool = typer.Option(
        False,
        "--token-stdin",
        help="Read a token from stdin, and say whether its key would be let in.",
    ),
) -> None:
    """Say which rule decides on a request, what it needs, and whether a key would be let in.

    Without a key, the exit code is 0. With one it is 1 if the key would not be let in. Limits are
    shown and not charged: those of the path, which add to those of the key. Addresses, networks and
    HTTPS are not asked.
    """
    # Other commands need no adapters.
    from keyguard.cli.route_report.applications import read_application
    from keyguard.cli.route_report.explanation import explain_request, of_settings
    from keyguard.runtime.loading import load_application

    if not path.startswith("/"):
        raise InvalidValueError("a path begins with a slash: keyguard explain GET /v1/models")
    if scope and token_stdin:
        raise InvalidValueError("give scopes or a token, and not both")
    application = common.application if name is None else load_application(name)
    routes = (
        of_settings(common.settings())
        if application is None
        else read_application(application, needs_routes=False)
    )
    found = explain_request(routes, method.upper(), path)
    plan = None if organization is None else _plan_of(common, organization)
    let_in, why = _let_in(common, found, scope, token_stdin=token_stdin)
    form = {
        **as_json(found.guarded),
        "method": found.method,
        "path": found.path,
        "route": _route(found),
        "rules": [_rule(rule) for rule in found.rules],
        "limits": [limit_words(limit) for limit in found.on(plan)],
        "plan": plan,
        "plans": found.plans,
        "let_in": let_in,
        "why": why,
    }
    common.show(
        form,
        _as_text(
            found, _about_plans(found, plan, asked=organization is not None), plan, let_in, why
        ),
    )
    if let_in is False and (scope or token_stdin):
        raise typer.Exit(1)


def _let_in(
    common: Common, found: Explanation, scopes: list[str], *, token_stdin: bool
) -> tuple[bool | None, str]:
    """Return whether a key would be let in, and why; None without a key."""
    refusal = next((rule for rule in found.rules if isinstance(rule, Deny)), None)
    if refusal is not None:
        return False, f"400: {detail_of(refusal)}"
    if found.guarded.by_itself:
        return None, f"decided by {MANAGEMENT_DECIDES}"
    if found.guarded.is_public:
        return True, "it needs no key"
    if token_stdin:
        with common.guard(looks_up=True) as guard:
            decision = guard.authenticate([b"Bearer " + read_token(common)], secure=True)
        if not isinstance(decision, Allow):
            key = "" if decision.key_id is None else f" (key {decision.key_id})"
            return False, f"{decision.reason}{key}"
        grant = decision.principal.grant
    elif scopes:
        grant = common.settings().policy.grant(parse_granted(scopes))
    else:
        return None, "no key was given"
    missing = _missing(found.guarded.requirements, grant)
    if missing:
        return False, f"scope_missing: it needs {missing}"
    return True, "it has the scopes" if found.guarded.requirements else "every key that works is"


def _missing(requirements: tuple[Requirement, ...], grant: ScopeGrant) -> str:
    return "; ".join(
        " ".join(sorted(each.all_of - {scope for scope in each.all_of if scope in grant}))
        or f"any of {' '.join(sorted(each.any_of))}"
        for each in requirements
        if not each.met_by(grant)
    )


def _route(found: Explanation) -> str | None:
    return None if found.route is None else found.route.whole_path


def _rule(rule: Rule | Deny | None) -> str | None:
    if not isinstance(rule, Rule):
        return None
    methods = "" if rule.methods is None else f" ({', '.join(sorted(rule.methods))})"
    return f"{rule.path}{methods}"


def _plan_of(common: Common, organization: str) -> str | None:
    with common.guard() as guard:
        return guard.organizations.get(organization).plan


def _about_plans(found: Explanation, plan: str | None, *, asked: bool) -> str | None:
    """Return what plans do to the limits, in words; None if they do nothing."""
    if not asked:
        return f"change these limits: {', '.join(found.plans)} (see --org)" if found.plans else None
    if plan is None:
        return "the organization has none"
    if not found.knows(plan):
        return f"{plan}, which the settings do not know: it changes nothing"
    return (
        f"{plan}, {'which changes these limits' if plan in found.plans else 'which changes none'}"
    )


def _as_text(
    found: Explanation, plans: str | None, plan: str | None, let_in: bool | None, why: str
) -> str:
    needs = [f"scopes {', '.join(found.all_of)}"] if found.all_of else []
    needs += [f"any of {', '.join(sorted(each))}" for each in found.any_of]
    rules = [
        "the path is ambiguous" if isinstance(rule, Deny) else _rule(rule) for rule in found.rules
    ]
    key = f"what is asked for by {MANAGEMENT_DECIDES}" if found.guarded.by_itself else "a key"
    login = "" if found.guarded.also is None else f", or {found.guarded.also}"
    text = details(
        [
            ("Request", escaped(f"{found.method} {found.path}")),
            ("Route", escaped(_route(found) or "none is for it") if found.is_read else None),
            ("Rule", "; ".join(escaped(rule or "none names it") for rule in rules) or "no guard"),
            (
                "Needs",
                "nothing" if found.guarded.is_public else ("; ".join(needs) or key) + login,
            ),
            ("Limits", escaped(", ".join(map(limit_words, found.on(plan))))),
            ("Plan" if plan else "Plans", plans if plans is None else escaped(plans)),
            ("Let in", None if let_in is None else f"{'yes' if let_in else 'no'}: {why}"),
        ]
    )
    problem = found.guarded.problem
    return text if problem is None else f"{text}\nproblem  {escaped(problem)}\n"
