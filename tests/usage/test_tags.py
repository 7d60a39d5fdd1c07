"""What a service may call its requests."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import InvalidValueError, Request, UsageTags
from keyguard.core.usage.values import OTHER_TAG
from tests.usage.test_counts import principal


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("chat", "a list of 1 to 50 tags"),
        ([], "a list of 1 to 50 tags"),
        (None, "a list of 1 to 50 tags"),
        ([str(number) for number in range(51)], "a list of 1 to 50 tags"),
        ([""], "a tag has up to 40"),
        (["a b"], "a tag has up to 40"),
        (["x" * 41], "a tag has up to 40"),
        ([7], "a tag has up to 40"),
        (["chat\n"], "a tag has up to 40"),
    ],
)
def test_tags_are_short_words_and_few(names: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        UsageTags(names, lambda principal, request: None)


def test_tags_need_a_function() -> None:
    nothing: Any = None
    with pytest.raises(InvalidValueError, match="a function"):
        UsageTags(["chat"], nothing)


@pytest.mark.parametrize(
    ("returned", "tag"),
    [("chat", "chat"), (None, ""), ("other", OTHER_TAG), ("x" * 10_000, OTHER_TAG), (7, OTHER_TAG),
     ([], OTHER_TAG)],
)  # fmt: skip
def test_what_is_not_declared_is_other(returned: Any, tag: str) -> None:
    tags = UsageTags(["chat"], lambda principal, request: returned)

    assert tags.tag_of(principal(), Request(method="GET", path="/")) == tag
