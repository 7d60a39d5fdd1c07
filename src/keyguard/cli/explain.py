"""``keyguard explain``: what decides on one request, and whether a key would be let in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import typer

from keyguard.cli.options import HASHED_STORE, Common, option, with_options
from keyguard.cli.parsing import parse_scopes
from keyguard.cli.routes import MANAGEMENT_DECIDES, as_json, limit_words
from keyguard.cli.terminal import details
from keyguard.cli.token_io import authenticate, refusal_words
from keyguard.core.access.answers import detail_of
from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.access.policy import Policy
from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import Requirement, ScopeGrant, parse_granted
from keyguard.core.keys.records import Organization
from keyguard.core.texts import escaped
from keyguard.exceptions import InvalidValueError
from keyguard.guard import Keyguard

if TYPE_CHECKING:
    from keyguard.cli.route_report.explanation import Explanation

_NO_APPLICATION = "unknown, like what decorators ask for: no application was read"
_NOT_READ = "unknown, like what decorators ask for: the application can't be read"


@with_options(*HASHED_STORE)
def explain(
    common: Common,
    method: str = typer.Argument(..., metavar="METHOD", help="The request method, such as GET."),
    path: str = typer.Argument(..., metavar="PATH", help="The path as a client sends it."),
    name: str | None = typer.Argument(
        None,
        metavar="MODULE:APP",
        help="The application, as for 'keyguard routes'. Without it, the Django project of "
        "DJANGO_SETTINGS_MODULE; without both, the rules of the settings alone.",
    ),
    scope: list[str] = typer.Option(
        [],
        "--scope",
        metavar="SCOPE",
        help="Say whether a key with this scope would be let in; may be repeated, or name several "
        "scopes separated by commas.",
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
    """Say what a request needs, and whether a key would be let in.

    It names the route that the request leads to, and the rule that decides. The exit code is 1 if
    a key is given and would not be let in, or if no keyguard middleware guards the path. Limits
    are shown and not charged: those of the path, which add to those of the key, on the plan of the
    key's organization. Addresses, networks and HTTPS are not checked.

    A key is judged by the settings of the application, and looked up in the key store of --url.
    'flask keyguard' and 'manage.py keyguard' judge it by the settings and the key store of their
    own application, even if MODULE:APP names another.
    """
    # Other commands need no adapters.
    from keyguard.cli.route_report.applications import (
        names_project,
        read_application,
        read_project,
    )
    from keyguard.cli.route_report.explanation import explain_request, of_settings
    from keyguard.runtime.loading import load_application

    if method.startswith("/"):
        raise InvalidValueError(f"first the method, then the path: {common.command} GET /v1/models")
    if not path.startswith("/"):
        raise InvalidValueError("a path begins with a slash: keyguard explain GET /v1/models")
    scopes = parse_scopes(scope)
    if scopes and token_stdin:
        raise InvalidValueError("give --scope or --token-stdin, not both")
    application = common.application if name is None else load_application(name)
    unread = _NOT_READ
    if application is not None:
        routes = read_application(application, needs_routes=False)
    elif names_project():
        routes = read_project()
    else:
        routes, unread = of_settings(common.settings()), _NO_APPLICATION
    found = explain_request(routes, method.upper(), path)
    common = _as_the_application(common, found)
    needs_token = token_stdin and (organization is not None or _decided(found) is None)
    key = _read_key(common, scopes, organization, needs_token=needs_token)
    plan = None if key.owner is None else key.owner.plan
    let_in, why = _decided(found) or _let_in(found, key)
    form = {
        **as_json(found.guarded),
        "method": found.method,
        "path": found.path,
        "route": _route(found),
        "routes_read": found.is_read,
        "takes": list(found.taken) or None,
        "rules": [_rule(rule) for rule in found.rules],
        "limits": [limit_words(limit) for limit in found.on(plan)],
        "plan": plan,
        "plans": found.plans,
        "let_in": let_in,
        "why": why,
    }
    plans = _about_plans(found, key.owner)
    common.show(form, _as_text(found, plans, plan, let_in, why, unread=unread))
    is_unguarded = found.guarded.problem is not None and not found.guards
    if is_unguarded or (let_in is False and (scopes or token_stdin)):
        raise typer.Exit(1)


class _Key(NamedTuple):
    """What is known of the key that would make the request.

    Args:
        grant: Its scopes; None if no key is asked about, or it does not work.
        refusal: Why it does not work; None if it does.
        owner: Its organization, or the one whose plan is asked about; None if neither is known.
        misspelt: Those of its scopes that the catalogue does not know.
    """

    grant: ScopeGrant | None = None
    refusal: str | None = None
    owner: Organization | None = None
    misspelt: tuple[str, ...] = ()


def _as_the_application(common: Common, found: Explanation) -> Common:
    """Return the options with the settings by which the application itself judges a key.

    The key store remains that of the options, and no replica of another store is asked.
    """
    settings = found.settings
    if settings is None or common.given is not None:
        return common
    if common.pepper_file is not None:
        settings = replace(settings, peppers=common.settings().peppers)
    return replace(common, settled=replace(settings, read_url=None, durable_replicas=0))


def _read_key(
    common: Common, scopes: list[str], organization: str | None, *, needs_token: bool
) -> _Key:
    """Return what is known of a key with some scopes, or of the key of a token that is read."""
    given = _key_with(common.settings().policy, scopes) if scopes else _Key()
    if organization is None and not needs_token:
        return given
    with common.guard(looks_up=needs_token) as guard:
        owner = None if organization is None else guard.organizations.get(organization)
        return _key_of_token(common, guard, owner) if needs_token else given._replace(owner=owner)


def _key_with(policy: Policy, scopes: list[str]) -> _Key:
    """Return what is known of a key with some scopes. Those that are misspelt cover nothing."""
    misspelt: list[str] = []
    for scope in scopes:
        try:
            if policy.catalogue is not None:
                policy.catalogue.check_granted([scope])
        except InvalidValueError:
            misspelt.append(scope)
    return _Key(policy.grant(parse_granted(scopes)), misspelt=tuple(misspelt))


def _key_of_token(common: Common, guard: Keyguard, asked: Organization | None) -> _Key:
    """Return what is known of the key of a token that is read.

    Raises:
        InvalidValueError: The key belongs to another organization than the one asked about.
    """
    decision = authenticate(common, guard)
    grant: ScopeGrant | None = None
    refusal: str | None = None
    organization: str | None
    if isinstance(decision, Allow):
        grant, organization = decision.principal.grant, decision.principal.organization
    else:
        organization = decision.organization
        refusal = f"{decision.reason}: {refusal_words(decision, guard.settings.prefix)}"
        if decision.reason is Reason.ADDRESS_NOT_ALLOWED and decision.key_id is not None:
            # The token works from some networks, and a command has no client address.
            refusal = None
            grant = guard.settings.policy.grant(guard.keys.get(decision.key_id).scopes)
    if organization is None:
        return _Key(grant, refusal, asked)
    if asked is not None and organization != asked.id:
        raise InvalidValueError(
            f"the token's key belongs to organization {organization}, but --org names {asked.id}: "
            "leave out --org, because the plan of the key's organization counts"
        )
    return _Key(grant, refusal, guard.organizations.get(organization))


def _decided(found: Explanation) -> tuple[bool | None, str] | None:
    """Return whether any request is let in, and why; None if its key decides."""
    refusal = next((rule for rule in found.rules if isinstance(rule, Deny)), None)
    if refusal is not None:
        return False, f"400: {detail_of(refusal)}"
    if found.guarded.by_itself:
        return None, f"decided by {MANAGEMENT_DECIDES}"
    if found.guarded.is_public:
        return True, "it needs no key" if found.guards else "no keyguard middleware guards it"
    return None


def _let_in(found: Explanation, key: _Key) -> tuple[bool | None, str]:
    """Return whether a key would be let in, and why; None without a key."""
    if key.refusal is not None:
        return False, key.refusal
    if key.grant is None:
        return None, "no key was given"
    missing = _missing(found.guarded.requirements, key.grant)
    if missing:
        why = f"scope_missing: it needs {missing}"
        unknown = ", ".join(key.misspelt)
        return False, f"{why}; the catalogue does not know {unknown}" if unknown else why
    why = "it has the scopes" if found.guarded.requirements else "every key that works is let in"
    return True, why if found.is_read else f"{why}, by the rules of the settings alone"


def _missing(requirements: tuple[Requirement, ...], grant: ScopeGrant) -> str:
    return "; ".join(
        " ".join(sorted(each.all_of - {scope for scope in each.all_of if scope in grant}))
        or f"any of {' '.join(sorted(each.any_of))}"
        for each in requirements
        if not each.met_by(grant)
    )


def _route(found: Explanation) -> str | None:
    return None if found.route is None else found.route.whole_path


def _about_route(found: Explanation, unread: str) -> str | None:
    if not found.is_read:
        return None if found.guarded.by_itself else unread
    route = _route(found) or "no route has this path"
    if found.taken:
        route += f", which takes {', '.join(found.taken)} and not {found.method}"
    return escaped(route)


def _rule(rule: Rule | Deny | None) -> str | None:
    if not isinstance(rule, Rule):
        return None
    methods = "" if rule.methods is None else f" ({', '.join(sorted(rule.methods))})"
    return f"{rule.path}{methods}"


def _about_plans(found: Explanation, owner: Organization | None) -> str | None:
    """Return what plans do to the limits, in words; None if they do nothing."""
    if owner is None:
        return f"change these limits: {', '.join(found.plans)} (see --org)" if found.plans else None
    plan = owner.plan
    if plan is None:
        return "the organization has none" if found.plans else None
    if not found.knows(plan):
        return f"{plan}, which the settings do not know: it changes nothing"
    changed = "these limits" if plan in found.plans else "none of them"
    return f"{plan}, which changes {changed}"


def _as_text(
    found: Explanation,
    plans: str | None,
    plan: str | None,
    let_in: bool | None,
    why: str,
    *,
    unread: str,
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
            ("Route", _about_route(found, unread)),
            (
                "Rule",
                "; ".join(escaped(rule or "no rule names this path") for rule in rules)
                or "no guard",
            ),
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
