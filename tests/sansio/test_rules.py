"""Which requests need no key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard.sansio.rules import PublicPaths, route_path

PATHS = PublicPaths(["/", "/healthz", "/a/b"])


@pytest.mark.parametrize("path", ["/", "/healthz", "/a/b"])
def test_a_public_path_needs_no_key(path: str) -> None:
    assert PATHS.admits(path, path.encode())
    assert PATHS.admits(path, None)


@given(st.text())
def test_nothing_else_is_public(path: str) -> None:
    assert PATHS.admits(path, None) is (path in {"/", "/healthz", "/a/b"})


@pytest.mark.parametrize(
    "raw",
    [
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a/b%00",
        b"/a//b",
        b"/a/./b",
        b"/a/x/../b",
        b"/a/%2e/b",
        b"/a/b/.",
        b"/a/b/..",
        b"http://host/a/b",
        b"*",
        b"/a\\b",
        b"/a/b\x00",
    ],
)
def test_a_path_that_two_parties_may_read_differently_is_not_public(raw: bytes) -> None:
    assert not PATHS.admits("/a/b", raw)


def test_an_escape_that_everybody_reads_alike_changes_nothing() -> None:
    assert PATHS.admits("/healthz", b"/%68ealthz")


@pytest.mark.parametrize(
    ("path", "root_path", "seen"),
    [
        ("/api/x", "/api", "/x"),
        ("/api", "/api", ""),
        ("/apix", "/api", "/apix"),
        ("/x", "/api", "/x"),
        ("/x", "", "/x"),
        ("/api/api/x", "/api", "/api/x"),
    ],
)
def test_the_router_s_path_is_without_its_mount(path: str, root_path: str, seen: str) -> None:
    assert route_path(path, root_path) == seen
