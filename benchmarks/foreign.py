"""Whether the time of a refusal tells that another organization has an object.

Each endpoint of the API and each page that has an id in its path is asked for an object of another
organization, and for one that does not exist. Both are answered with the same bytes. Requests for
both alternate in random order, and a rank test tells whether one kind takes longer.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median
from tempfile import TemporaryDirectory
from time import thread_time
from typing import Any
from urllib.parse import urlencode

from benchmarks.report import Section, Verdict, table
from keyguard import Keyguard
from keyguard.admin.api import ENDPOINTS
from keyguard.admin.api.document import document
from keyguard.admin.application import STEP, until_next_step
from keyguard.admin.console import API, PAGES
from keyguard.admin.console.form_tokens import _signer
from keyguard.admin.endpoints import Endpoint
from tests.admin.api.calls import Sent, environ_of
from tests.admin.api.office import PEOPLE, Ids, least_body, like
from tests.admin.pages.rooms import FORM, Rooms

PAIRS = 1000
WARM_UP = 50
MOUNT = "/keys"
CALLER = "administrator"
SHOWN = 8


@dataclass(frozen=True)
class Found:
    """What the time of one endpoint tells.

    Args:
        name: The endpoint.
        foreign: Seconds that each request for an object of another organization takes.
        unknown: Those of each request for an object that does not exist.
    """

    name: str
    foreign: Sequence[float]
    unknown: Sequence[float]

    @property
    def ratio(self) -> float:
        """How much longer the work for a foreign object takes, by the medians."""
        return median(self.foreign) / median(self.unknown)

    @property
    def guess(self) -> float:
        """How often who sees both answers tells by their times which is which; 0.5 is a guess."""
        return _told(*map(_answered, (self.foreign, self.unknown)))

    @property
    def guess_at_work(self) -> float:
        """The same for who sees how long the work takes, before the answer waits."""
        return _told(self.foreign, self.unknown)


def _answered(work: Sequence[float]) -> list[float]:
    """Return when answers come: a rest of a step is waited for."""
    return [round((seconds + until_next_step(seconds)) / STEP) for seconds in work]


def _told(first: Sequence[float], second: Sequence[float]) -> float:
    return 0.5 + abs(chance_that_larger(first, second) - 0.5)


def chance_that_larger(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how likely a value of the first sample is the larger, by Mann and Whitney's U."""
    ordered = sorted([*((value, 1) for value in first), *((value, 0) for value in second)])
    ranks, at = 0.0, 0
    while at < len(ordered):
        end, firsts = at, 0
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            firsts += ordered[end][1]
            end += 1
        ranks += (at + 1 + end) / 2 * firsts
        at = end
    return (ranks - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def noise(endpoints: int) -> float:
    """Return the guess that equal times exceed at some endpoint in one of twenty runs."""
    spread = ((2 * PAIRS + 1) / 12) ** 0.5 / PAIRS
    return 0.5 + spread * NormalDist().inv_cdf(1 - 0.05 / endpoints / 2)


def measure() -> Section:
    """Compare foreign with unknown objects at every endpoint, on SQLite."""
    with TemporaryDirectory() as folder, Keyguard(f"sqlite:///{folder}/keys.db") as guard:
        guard.migrate()
        rooms = Rooms()
        rooms.guard = guard
        for slug in ("acme", "other"):
            guard.organizations.create(slug)
        app = rooms.fronts["wsgi"][1]
        app.application.pause = _no_pause  # it is reckoned instead
        foreign = Ids(rooms, "other")
        found = [race(app, *asked) for asked in questions(foreign, ghost(foreign))]
    found.sort(key=lambda endpoint: (endpoint.guess, endpoint.guess_at_work), reverse=True)
    rows = [
        [
            endpoint.name,
            f"{median(endpoint.foreign) * 1e6:.0f}",
            f"{endpoint.ratio:.2f}",
            f"{endpoint.guess_at_work:.3f}",
            f"{endpoint.guess:.3f}",
        ]
        for endpoint in found[:SHOWN]
    ]
    most, worst = noise(len(found)), found[0]
    said = (
        f"{len(found)} endpoints and pages on SQLite get {2 * PAIRS:,} requests each, in random "
        "order: for an object of\nanother organization, and for one that does not exist. A *guess* "
        "is how often who sees the times of\nboth tells which is which, by Mann and Whitney's U: "
        "of the work alone, and of the answer, which waits\nfor the next multiple of "
        f"{STEP * 1000:g} ms. Those that tell most:"
    )
    head = ["asked", "work, µs", "foreign / unknown", "guess by work", "guess by answer"]
    target = f"no time of {len(found)} tells more than chance does in one of twenty runs"
    verdict = Verdict(target, worst.guess, most, f"{worst.guess:.3f} of {most:.3f}, {worst.name}")
    return Section(f"{said}\n\n{table(head, rows)}", [verdict])


async def _no_pause(seconds: float) -> None:
    """Answer at once."""


def ghost(ids: Ids) -> Ids:
    """Return ids of the same form that nothing has."""
    made = Ids.__new__(Ids)
    vars(made).update({name: like(value) for name, value in vars(ids).items()})
    made.hint = ids.hint
    return made


def questions(first: Ids, second: Ids) -> Iterator[tuple[str, Sent, Sent]]:
    """Return what is asked: its name, and a request for each of two objects."""
    described = document(ENDPOINTS)["paths"]
    for endpoint in ENDPOINTS:
        if "{" in endpoint.path:
            body = least_body(described[endpoint.path][endpoint.method.lower()])
            name = f"{endpoint.method} {API}{endpoint.path}"
            yield (
                name,
                *(
                    Sent(
                        endpoint.method,
                        API + ids.path(endpoint.path),
                        body=body,
                        headers={"if-match": '"1"'},
                        person=CALLER,
                        mount=MOUNT,
                    )
                    for ids in (first, second)
                ),
            )
    for page in PAGES:
        if "{" in page.path and not page.anonymous:
            yield f"{page.method} {page.path}", _page(page, first), _page(page, second)


def _page(page: Endpoint, ids: Ids) -> Sent:
    path = ids.path(page.path)
    sent = Sent(page.method, path, person=CALLER, mount=MOUNT)
    if page.method == "GET":
        return sent
    who = f"person:{PEOPLE[CALLER].id}"
    signed = _signer("browser", MOUNT + path).get_signature(who).decode()
    return replace(sent, raw=urlencode({"csrf": signed}).encode(), headers=FORM)


def race(app: Any, name: str, first: Sent, second: Sent) -> Found:
    """Time two requests in random order."""
    times: tuple[list[float], list[float]] = ([], [])
    order = [0, 1] * PAIRS
    random.Random(name).shuffle(order)
    for kind in [0, 1] * WARM_UP:
        _time(app, (first, second)[kind])
    gc.collect()
    gc.disable()
    try:
        for kind in order:
            times[kind].append(_time(app, (first, second)[kind]))
    finally:
        gc.enable()
    return Found(name, *times)


def _time(app: Any, sent: Sent) -> float:
    environ = environ_of(sent)
    started = thread_time()
    app(environ, _ignore)
    return thread_time() - started


def _ignore(status: str, headers: object) -> None:
    """Take the beginning of an answer."""
