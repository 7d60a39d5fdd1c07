"""The documentation says what the library does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import keyguard
from keyguard import Deny, Reason, Strategy
from keyguard.guard import KeyManager, OrganizationManager
from keyguard.sansio.charges import Charge
from keyguard.sansio.responses import Responder
from keyguard.sansio.windows import Tally
from tests.examples.pages import blocks, page, run


def denied(reason: Reason) -> Deny:
    if reason is Reason.SCOPE_MISSING:
        return Deny(reason, scopes=("inference:write",))
    if reason is Reason.TOO_MANY_FAILURES:
        return Deny(reason, retry_after=18)
    if reason is Reason.RATE_LIMITED:
        policies = (("key-minute", 100, 60), ("org-day", 20_000, 86_400))
        charges = tuple(
            Charge(name, name, amount, window, Strategy.SLIDING_WINDOW_COUNTER, True, 1)
            for name, amount, window in policies
        )
        tallies = (Tally(False, 0, 17.2, 17.9), Tally(True, 11_042, 41_220.0, 0.0))
        return Deny(reason, charges=charges, tallies=tallies, retry_after=18)
    return Deny(reason)


def spelled(reason: Reason) -> str:
    response = Responder("AIaaS").respond(denied(reason), 0.0)
    lines = [
        f"HTTP/1.1 {response.status_line}",
        *(f"{name}: {value}" for name, value in response.headers),
        "",
        response.body.decode(),
        "",
    ]
    return "\n".join(lines)


def test_every_answer_is_documented_byte_by_byte() -> None:
    documented = blocks(page("docs/http.md"), "http")

    assert len(documented) == len(set(documented))
    assert set(documented) == {spelled(reason) for reason in Reason}


@pytest.mark.parametrize("name", ["docs/security.md", "docs/backends.md", "docs/limits.md"])
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    count = len(blocks(page(name), "python"))
    assert count

    for number in range(count):
        guard = run(name, number, {"__name__": "docs"}).get("guard")
        if guard is not None:
            guard.close()


def test_the_reference_has_every_public_name() -> None:
    documented = set(
        re.findall(r"^\.\. [\w:]+:: keyguard\.(\w+)$", page("docs/reference.md"), re.M)
    )

    assert documented == set(keyguard.__all__)


@pytest.mark.parametrize("manager", [OrganizationManager, KeyManager])
def test_the_reference_has_every_operation_with_its_parameters(manager: type) -> None:
    written = re.findall(
        rf"^\.\. automethod:: keyguard\.guard\.{manager.__name__}\.(\w+)(\(.*\))$",
        page("docs/reference.md"),
        re.M,
    )

    assert dict(written) == {
        name: signature(getattr(manager(lambda flow: None), name))
        for name in vars(manager)
        if not name.startswith("_")
    }


def signature(function: Any) -> str:
    found = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
    ]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
