"""docs/usage.md says what the library does."""

from __future__ import annotations

import pytest

from tests.examples.pages import run


@pytest.mark.parametrize("number", [0, 2])
def test_what_the_page_shows_runs(number: int) -> None:
    names = run("docs/usage.md", number, {"__name__": "docs"})

    if number == 0:
        assert [item.n for item in names["week"].items] == [1]
        assert [item.n for item in names["busiest"].items] == [1]
        own = run("docs/usage.md", 1, names)["own"]
        assert [item.n for item in own.month] == [1]
        names["guard"].close()
    else:
        assert names["settings"].usage_tags.names == {"chat", "search"}
