"""No sign in the password of a URL brings a part of the password into an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keyguard import AsyncKeyguard, ConfigurationError, Keyguard, Settings
from keyguard.stores.limits.storages import AsyncStorageRateLimiter
from keyguard.stores.opening import open_async_store, open_store
from keyguard.stores.redis.deployment import parse
from keyguard.stores.sql.errors import place_of
from tests.test_secrecy_at_start import shown_by

WORDS = ("hunter", "swordfish", "7313")
FORMS = (
    "redis://u:{}@127.0.0.1:1/0",
    "redis://:{}@127.0.0.1:1",
    "rediss://u:{}@127.0.0.1/0?client_name=x",
    "redis+sentinel://u:{}@127.0.0.1:1/main/0",
    "redis+sentinel://127.0.0.1:1/main?sentinel_password={}",
    "redis+cluster://u:{}@127.0.0.1:1",
    "redis+unix://u:{}@/run/redis.sock",
    "postgresql://u:{}@127.0.0.1:1/keys",
    "postgresql://u:{}@127.0.0.1/keys?connect_timeout=3",
    "postgresql://127.0.0.1:1/keys?user=u&password={}",
    "postgresql:///u:{}@127.0.0.1/keys",
    "postgres://u/v:{}@127.0.0.1/keys",
    "mysql://u:{}@127.0.0.1:1/keys",
    "mariadb://u:{}@127.0.0.1/keys?charset=utf8mb4",
    "memcached://u:{}@127.0.0.1:1",
    "nonsense://u:{}@127.0.0.1",
    "u:{}://@127.0.0.1",
)
SIGNS = st.text("@:/?#[]%&=;+,.!$'()*~ \\^`{|}<>\"-_", max_size=3)
KNOWN = st.sampled_from(["", "socket_timeout", "client_name", "password", "options", "typo"])
PASSWORDS = st.tuples(*[SIGNS, st.sampled_from(WORDS), SIGNS, KNOWN] * 3, SIGNS).map("".join)
FEW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def of_password(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


def places(url: str, *, limiter: bool) -> Iterator[str]:
    """Give what errors call the place of a URL that is taken."""
    if limiter and not re.match("redis|postgres|mysql|mariadb", url):
        yield AsyncStorageRateLimiter(url)._place
    elif url.startswith("redis"):
        yield parse(url).place
    else:
        for store in (open_store(url), open_async_store(url)):
            database: Any = store
            yield place_of(database.database.reads.url)


@FEW
@given(password=PASSWORDS, form=st.sampled_from(FORMS))
@example("12?hunter&x", "redis://u:{}@host")
@example("12#hunter", "redis://u:{}@host")
@example("12/hunter", "redis://u:{}@host")
@example("7313?socket_timeout=hunter", "redis://u:{}@host")
@example("7313@12#hunter", "redis://u:{}@host")
@example("a@hunter/swordfish", "postgresql://u:{}@host/keys")
@example("a@hunter?swordfish", "postgresql://u:{}@host/keys")
@example("a@hunter?application_name=x&typo=1", "postgresql://u:{}@host/keys")
@example("a@hunter", "postgresql://127.0.0.1:1/keys?user=u&password={}")
@example("a@hunter", "mongodb://127.0.0.1:1/?password={}")
@example("hunter", "postgresql:///u:{}@127.0.0.1/keys")
@example("hunter&x=", "postgresql:///u:{}@127.0.0.1/keys")
@example("a@hunter,", "memcached://u:{}@127.0.0.1:1")
@example("hunter[hunter]", "redis://u:{}@127.0.0.1:1/0")
@example("hunter[hunter]", "postgresql://u:{}@127.0.0.1:1/keys")
def test_a_url_shows_no_part_of_its_password(password: str, form: str) -> None:
    url = form.format(password)
    for guard in (Keyguard, AsyncKeyguard):
        for given_as in ("store", "limiter", "read"):
            options: dict[str, Any] = {} if given_as == "store" else {given_as: url}
            try:
                made: Any = guard(url if given_as == "store" else "memory://", **options)
                _ = made.limiter
            except ConfigurationError as failure:
                shown = [shown_by(failure)]
            else:
                shown = [repr(made), *places(url, limiter=given_as == "limiter")]
            assert of_password("".join(shown)) == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:12?hunter&x@host",
        "redis://u:12#hunter@host",
        "redis://u:12/hunter@host",
        "redis+cluster://u:12/hunter@host",
        "redis+sentinel://u:12/hunter@host/main",
        "postgresql://u:a@hunter/b@host/keys",
        "postgresql://u:a@hunter?b@host/keys",
        "postgresql:///u:hunter@host/keys",
        "mysql://u:a@hunter?typo=1@host/keys",
    ],
)
def test_a_password_that_was_cut_short_is_to_be_escaped(url: str) -> None:
    for open_any in (open_store, open_async_store):
        with pytest.raises(ConfigurationError, match=r"not shown.* %40 %3A %2F %3F %23") as refused:
            open_any(url)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis+unix:///run/redis@1.sock",
        "redis+sentinel://h/main?sentinel_password=a@b",
        "redis://u:a@b@h/0?client_name=a@b",
        "postgresql://u:a/b?c#d@h/keys?application_name=a@b",
        "postgresql:///keys?host=/run&user=a@b",
        "mysql://u%40v:a@h/keys",
    ],
)
def test_a_url_that_can_be_read_in_one_way_is_taken(url: str) -> None:
    assert open_store(url) is not None
    assert open_async_store(url) is not None


def test_a_url_in_place_of_a_setting_is_not_repeated(tmp_path: Path) -> None:
    url = "redis://u:hunter@h"
    file = tmp_path / "settings.toml"
    for line in (f"cache_size = '{url}'", f"'{url}' = 1", f"read_url = {url}"):
        file.write_text(line)
        with pytest.raises(Exception, match=r".") as failed:
            Settings.from_file(file, {})
        assert of_password(shown_by(failed.value)) == []
    with pytest.raises(Exception, match=r".") as failed:
        Settings.from_env({"KEYGUARD_CACHE_SIZE": url})
    assert of_password(shown_by(failed.value)) == []
