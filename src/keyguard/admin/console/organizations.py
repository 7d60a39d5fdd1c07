"""Pages on organizations: which there are, and creating one."""

from __future__ import annotations

from keyguard.admin.console.page import REFUSALS, Pages, View, organizations_of, sent
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.core.keys.records import Organization
from keyguard.exceptions import NotFoundError

PAGES = Pages()


@PAGES.add("GET", "/")
async def show_start(context: Context) -> Answer:
    """Lead to the only organization of the caller, or to the list."""
    names = organizations_of(context.known)
    view = View(context)
    if len(names) == 1:
        return view.go(f"/organizations/{names[0]}")
    return view.go("/organizations")


@PAGES.add("GET", "/organizations")
async def list_organizations(context: Context) -> Answer:
    """List the organizations in which the caller has a role."""
    view = View(context)
    known = context.known
    items: list[tuple[Organization, str]] = []
    following = None
    person = context.person
    if person is not None and person.operator:
        listed = await context.management.organizations.list(
            after=view.query("after") or None, limit=50
        )
        items = [(organization, "operator") for organization in listed]
        following = view.next_page(listed.next)
    else:
        for name in organizations_of(known):
            try:
                organization = await context.management.organizations.get(name)
            except NotFoundError:
                continue
            role = "" if person is None else person.roles[name]
            items.append((organization, role))
    can = {"create"} if person is not None and person.operator else frozenset[str]()
    return view.show("organizations.html", "Organizations", items=items, next=following, can=can)


@PAGES.form("/organizations/new", Right.OPERATE, target="/organizations")
async def create_organization(context: Context) -> Answer:
    """Show the form of a new organization, and create it."""
    view, fields, problem = View(context), await sent(context), ""
    if fields:
        try:
            created = await context.management.organizations.create(
                slug=fields.get("slug", ""), name=fields.get("name", ""), actor=context.caller
            )
            return view.go(f"/organizations/{created.slug}", "created")
        except REFUSALS as refused:
            problem = str(refused)
    return view.ask(
        "New organization",
        "/organizations",
        "Create the organization",
        problem=problem,
        lead="An organization owns keys. Its short name is used in addresses and on the command "
        "line, and can't be changed.",
        fields=[
            {"name": "name", "label": "Name", "value": fields.get("name", ""), "required": True},
            {
                "name": "slug",
                "label": "Short name",
                "value": fields.get("slug", ""),
                "hint": "Lower-case letters, digits and hyphens, such as acme-labs.",
                "required": True,
                "most": 63,
            },
        ],
        back="/organizations",
    )
