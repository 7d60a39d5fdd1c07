"""Ports that a test scripts: each answers in turn, and what was asked is noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyguard.core.access.authenticate import authenticate
from keyguard.core.access.policy import Policy
from keyguard.core.access.ports import Fingerprint
from keyguard.runtime.sync import run_sync

MARK = (7, 11.0)


class ScriptedPorts:
    """The outside of one request.

    Args:
        policy: What the service has settled.
        answers: What the ports answer, in the order in which they are asked. An exception is
            raised.
    """

    def __init__(self, policy: Policy, *answers: Any) -> None:
        self.policy = policy
        self.asked: list[str] = []
        self._answers = iter(answers)
        self.tokens: Any = self
        self.blocklist: Any = self
        self.counters: Any = self

    def _answer(self, name: str) -> Any:
        self.asked.append(name)
        answer = next(self._answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def fingerprint(self, token: Any) -> Fingerprint:
        return Fingerprint(b"fingerprint of the token")

    def recall_any(self, fingerprint: Fingerprint) -> Any:
        return self._answer("recall")

    def matched(self, fingerprint: Fingerprint, digest: str) -> bool:
        return False

    def remember(self, fingerprint: Fingerprint, record: Any, allow: Any, mark: Any) -> Any:
        assert mark == MARK
        return self._answer("remember")

    def discard(self, fingerprint: Fingerprint) -> None:
        self._answer("discard")

    async def find_key(self, key_id: str, *, fresh: bool) -> Any:
        return self._answer("find_key"), MARK

    async def verify(self, token: Any, digest: str | None, client: str, key_id: str) -> Any:
        return self._answer("verify")

    def note_failure(self, name: str) -> None: ...

    def now(self) -> Any:
        return self._answer("now")

    def note_use(self, principal: Any, address: str | None) -> None:
        self._answer("note_use")

    def offer_rehash(self, key_id: str, token: Any, digest: str) -> None:
        self._answer("offer_rehash")

    def note_unknown_plan(self, organization: Any) -> None:
        self._answer("note_unknown_plan")


def decided(fields: Sequence[str | bytes], policy: Policy, *answers: Any) -> tuple[list[str], Any]:
    """Authenticate over scripted ports; return what was asked, and the decision."""
    ports: Any = ScriptedPorts(policy, *answers)
    decision = run_sync(authenticate(ports, fields))
    return ports.asked, decision
