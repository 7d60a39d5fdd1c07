"""What a service settles about requests for keys."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keyguard import ApprovalRule, InvalidValueError, Settings

RULE: dict[str, Any] = {"name": "readers", "scopes": ["inference:read"]}


@pytest.mark.parametrize(
    "options",
    [
        {"requesters": "everyone"},
        {"request_lifetime": 59},
        {"claim_lifetime": 31_536_001},
        {"approvals": {"admin": 0}},
        {"approvals": {"admin": 11}},
        {"approvals": {"admin": True}},
        {"approvals": {"admin": "2"}},
        {"approvals": {"*": 2}},
        {"approvals": ["admin"]},
        {"approval_rules": ["readers"]},
    ],
)
def test_what_is_not_valid_is_refused_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        Settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"scopes": ["no scope"]},
        {"scopes": "inference:read"},
        {"longest": 30},
        {"requesters": "*"},
        {"requesters": [""]},
        {"requesters": 5},
    ],
)
def test_a_rule_that_is_not_valid_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        ApprovalRule(**RULE | options)


def test_the_environment_says_who_may_ask_and_for_how_long() -> None:
    settings = Settings.from_env(
        {"KEYGUARD_REQUESTERS": "people", "KEYGUARD_CLAIM_LIFETIME": "3600"}
    )

    terms = settings.request_terms
    assert (terms.requesters, terms.claimable_for) == ("people", timedelta(hours=1))
    assert terms.pending_for == timedelta(days=7)


@pytest.mark.parametrize(
    "text",
    [
        "approval_rules = 5",
        'approval_rules = ["readers"]',
        '[[approval_rules]]\nname = "readers"',
        '[[approval_rules]]\nname = "readers"\nscopes = ["a"]\nscope = "b"',
        '[[approval_rules]]\nname = "readers"\nscopes = ["a"]\nlongest = "30d"',
        "[approvals]\nadmin = 1.5",
    ],
)
def test_a_file_that_is_not_valid_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keyguard.toml").write_text(text)
    with pytest.raises(InvalidValueError):
        Settings.from_file(tmp_path / "keyguard.toml", {})
