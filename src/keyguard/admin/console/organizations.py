"""Pages on organizations: which there are, and creating one."""

from __future__ import annotations

from keyguard.admin.console.page import REFUSALS, View, organizations_of, pages, sent
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer, settled
from keyguard.admin.rights import Right
from keyguard.core.keys.records import Organization
from keyguard.exceptions import NotFoundError

PAGES = pages()


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
        listed = await settled(
            context.guard.organizations.list(after=view.query("after") or None, limit=50)
        )
        items = [(organization, "operator") for organization in listed]
        following = view.next_page(listed.next)
    else:
        for name in organizations_of(known):
            try:
                organization = await settled(context.guard.organizations.get(name))
            except NotFoundError:
                continue
            role = "" if person is None else person.roles[name]
            items.append((organization, role))
    can = {"create"} if person is not None and person.operator else frozenset[str]()
    return view.show("organizations.html", "Organizations", items=items, next=following, can=can)


@PAGES.add("GET", "/organizations/new", Right.OPERATE)
@PAGES.add("POST", "/organizations", Right.OPERATE)
async def create_organization(context: Context) -> Answer:
    """Show the form of a new organization, and create it."""
    view, fields, problem = View(context), await sent(context), ""
    if fields:
        try:
            created = await settled(
                context.guard.organizations.create(
                    slug=fields.get("slug", ""), name=fields.get("name", ""), actor=context.caller
                )
            )
            return view.go(f"/organizations/{created.slug}", "created")
        except REFUSALS as refused:
            problem = str(refused)
    return view.ask(
        "New organization",
        "/organizations",
        "Create the organization",
        problem=problem,
        lead="It owns keys. Its short name is in addresses and on the command line, and stays.",
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
