"""Kill a process with SIGKILL at random points of its work, and look at what it left behind.

``python -m tests.chaos.campaign URL KILLS SEED`` forks one worker after another. Each issues,
rotates and revokes keys, asks for others, approves and claims them, tells the store of uses, and
writes down what was acknowledged; each is killed at some point. After each, the store must hold
whole changes only, all that were acknowledged, and one entry in the audit trail for every change.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from keyguard import Action, IssuedKey, Key, Keyguard, KeyguardError, RotatedKey

LONGEST_LIFE = 0.12  # seconds from the first change on
ACTIONS = {
    "issue": Action.KEY_ISSUED,
    "rotate": Action.KEY_ROTATED,
    "revoke": Action.KEY_REVOKED,
    "ask": Action.REQUEST_CREATED,
    "approve": Action.REQUEST_APPROVED,
    "claim": Action.REQUEST_CLAIMED,
}
CLAIMED = "claimed"
"""The name of the keys that are claimed."""


def work(url: str, seed: int, out: int) -> None:
    """Change keys until somebody ends this; write each acknowledged change to ``out``."""
    rng = random.Random(seed)
    guard = Keyguard(url, failure_limit=None)

    def acknowledge(what: str, key_id: str) -> None:
        os.write(out, f"{what} {key_id}\n".encode())

    live: list[IssuedKey | RotatedKey] = []
    while True:
        if rng.random() < 0.5:
            asked = guard.requests.create(
                organization="acme", name=CLAIMED, scopes=["models:read"], actor=f"ann {seed}"
            )
            acknowledge("ask", asked.request.id)
            guard.requests.approve(asked.request.id, actor="bob")
            acknowledge("approve", asked.request.id)
            claimed = guard.requests.claim(asked.request.id, ticket=asked.ticket)
            acknowledge("claim", asked.request.id)
            acknowledge("issue", claimed.key.id)
            continue
        issued = guard.keys.issue(organization="acme", name="one", scopes=["models:read"])
        acknowledge("issue", issued.key.id)
        live.append(issued)
        one = live.pop(rng.randrange(len(live)))
        assert one.token is not None
        guard.authenticate([f"Bearer {one.token.reveal()}"])
        guard.flush()
        acknowledge("use", one.key.id)
        if rng.random() < 0.5:
            grace = timedelta(hours=rng.choice([0, 1]))
            rotated = guard.keys.rotate(one.key.id, grace=grace)
            acknowledge("rotate", one.key.id)
            acknowledge("issue", rotated.key.id)
            live.append(rotated)
        else:
            guard.keys.revoke(one.key.id)
            acknowledge("revoke", one.key.id)


def killed(url: str, seed: int) -> list[tuple[str, str]]:
    """Run a worker, kill it, and return what was acknowledged to it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(url, seed, writing)
        finally:
            os._exit(3)  # it works until it is killed
    os.close(writing)
    select.select([reading], [], [])  # it has begun to work, or has ended
    time.sleep(random.Random(seed).uniform(0, LONGEST_LIFE))
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as lines:
        acknowledged = [(line.split()[0], line.split()[1]) for line in lines if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the worker of seed {seed} ended by itself")
    return acknowledged


def everything(list_page: Any) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        page = list_page(after=after, limit=1000)
        found += page
        if page.next is None:
            return found
        after = page.next


def whole(guard: Keyguard) -> tuple[list[Any], list[Key], list[Any]]:
    """Return the trail, the keys and the requests as they were at one time.

    A server may still be making the last change of a process that was killed. The trail tells.
    """
    trail = everything(guard.audit.list)
    while True:
        keys, requests = everything(guard.keys.list), everything(guard.requests.list)
        before, trail = trail, everything(guard.audit.list)
        if trail == before:
            return trail, keys, requests


def check(guard: Keyguard, acknowledged: set[tuple[str, str]]) -> None:
    """Compare keys, trail and what was acknowledged."""
    entries, found_keys, requests = whole(guard)
    keys = {key.id: key for key in found_keys}
    trail = Counter((entry.action, entry.subject) for entry in entries)
    twice = [what for what, number in trail.items() if number > 1]
    if twice:
        raise SystemExit(f"in the trail more than once: {twice}")
    expected: set[tuple[Action, str]] = set()
    for key in keys.values():
        expected.add((Action.KEY_ISSUED, key.id))
        if key.successor is not None:
            expected.add((Action.KEY_ROTATED, key.id))
            if keys[key.successor].family != key.family or key.grace_ends_at is None:
                raise SystemExit(f"half a rotation: {key}")
        if key.revoked_at is not None and key.successor is None:
            expected.add((Action.KEY_REVOKED, key.id))
    claimed: set[str | None] = set()
    for request in requests:
        expected.add((Action.REQUEST_CREATED, request.id))
        if request.granted is not None:
            expected.add((Action.REQUEST_APPROVED, request.id))
        if request.claimed_at is not None:
            expected.add((Action.REQUEST_CLAIMED, request.id))
            claimed.add(request.key)
    if claimed != {key.id for key in keys.values() if key.name == CLAIMED}:
        raise SystemExit("half a claim: the keys that are claimed are not those of requests")
    found = {what for what in trail if what[0] in ACTIONS.values()}
    if found != expected:
        raise SystemExit(f"keys and trail differ: {sorted(found ^ expected)}")
    for what, key_id in acknowledged:
        if what == "use":
            lost = keys[key_id].last_used_at is None
        else:
            lost = (ACTIONS[what], key_id) not in found
        if lost:
            raise SystemExit(f"acknowledged and lost: {what} {key_id}")


def main(url: str, kills: int, seed: int) -> None:
    with Keyguard(url) as guard:
        guard.migrate()
        guard.organizations.create("acme")
    acknowledged: set[tuple[str, str]] = set()
    for number in range(kills):
        acknowledged |= set(killed(url, seed + number))
        with Keyguard(url) as guard:
            try:
                check(guard, acknowledged)
            except KeyguardError as failure:
                raise SystemExit(
                    f"the store can't be read after seed {seed + number}: {failure}"
                ) from failure
    counts = Counter(what for what, _ in acknowledged)
    print(f"{kills} kills, {len(acknowledged)} acknowledged changes kept: {dict(counts)}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
