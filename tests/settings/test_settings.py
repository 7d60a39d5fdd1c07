"""Settings: frozen, validated once, readable from the environment."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from keyguard import ConfigurationError, InvalidValueError, Keyguard, Limit, Rule, Secret, Settings
from keyguard.core.access.answers import Responder
from keyguard.core.access.policy import Policy
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.tokens.format import TokenFormat
from keyguard.settings.hashing import TokenHasher
from keyguard.settings.options import Options

PEPPER = "vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"
OLDER = "Zb8WnTeKc5DyMhRgVq2SxPjAu4LfOo1i"


@pytest.fixture(autouse=True)
def patience() -> None:
    """Leave the defaults as users have them."""


def test_the_defaults_are_safe() -> None:
    settings = Settings()

    assert settings.public == ()
    assert settings.max_staleness == 5.0
    assert settings.store_timeout == 0.25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"realm": ""}, "a realm takes"),
        ({"realm": "a\nb"}, "a realm takes"),
        ({"realm": "é"}, "a realm takes"),
        ({"prefix": "Nope"}, "no token prefix"),
        ({"catalogue": {"a b": ""}}, "is no scope"),
        ({"public": "/healthz"}, r"write \['/healthz'\]"),
        ({"public": ["healthz"]}, "no (exact )?path"),
        ({"public": ["/a/../b"]}, "no (exact )?path"),
        ({"public": ["/a//b"]}, "no (exact )?path"),
        ({"public": ["/a%2fb"]}, "no (exact )?path"),
        ({"public": ["/a?b"]}, "no (exact )?path"),
        ({"public": ["/*"]}, "no (exact )?path"),
        ({"public": [7]}, "a path is a string"),
        ({"peppers": PEPPER}, "peppers are a list"),
        ({"peppers": ["short"]}, "at least 32"),
        ({"hasher": "md5"}, "unknown hasher"),
        ({"max_staleness": -1}, "max_staleness takes"),
        ({"max_staleness": float("nan")}, "max_staleness takes"),
        ({"max_staleness": "5"}, "takes a number"),
        ({"connection_max_age": 0.5}, "connection_max_age takes"),
        ({"cache_size": True}, "takes a whole number"),
        ({"cache_size": 1.5}, "takes a whole number"),
        ({"hash_workers": 1.5}, "takes a whole number"),
        ({"require_https": "false"}, "True or False"),
        ({"require_https": None}, "True or False"),
        ({"prefix": 5}, "no token prefix"),
        ({"catalogue": ["a:b"]}, "mapping of scope to description"),
        ({"public": None}, "public paths are a list"),
        ({"public": ["/\ud800"]}, "no (exact )?path"),
        ({"peppers": None}, "peppers are a list"),
        ({"peppers": [None]}, "a Secret or a string"),
        ({"cache_size": -1}, "cache_size takes"),
        ({"store_timeout": 0}, "store_timeout takes"),
        ({"hash_workers": 0}, "hash_workers takes"),
        ({"usage": 1}, "usage takes True or False"),
        ({"usage_bucket": "30m"}, "usage_bucket takes '15m' or '1h', not '30m'"),
        ({"usage_bucket": None}, "usage_bucket takes"),
        ({"usage_tags": ["chat"]}, "usage_tags takes UsageTags"),
        ({"imported_formats": "drf"}, "imported_formats takes a list"),
        ({"imported_formats": None}, "imported_formats takes a list"),
        ({"imported_formats": ["jwt"]}, "'jwt' is no format of imported tokens"),
        ({"imported_formats": ["drf", "drf"]}, "names 'drf' twice"),
    ],
)
def test_what_can_t_be_is_refused_at_start(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        Settings(**options)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().realm = "other"  # type: ignore[misc]


def test_settings_do_not_show_peppers() -> None:
    assert PEPPER not in repr(Settings(peppers=[PEPPER]))


def test_everything_can_come_from_the_environment() -> None:
    settings = Settings.from_env(
        {
            "KEYGUARD_REALM": "AIaaS",
            "KEYGUARD_PREFIX": "aiaas_live",
            "KEYGUARD_SCOPES": "inference:read, inference:write admin",
            "KEYGUARD_PUBLIC": "/healthz,/ready",
            "KEYGUARD_PEPPER": f"{PEPPER} {OLDER}",
            "KEYGUARD_HASHER": "hmac-sha256",
            "KEYGUARD_REQUIRE_HTTPS": "true",
            "KEYGUARD_MAX_STALENESS": "2.5",
            "KEYGUARD_CACHE_SIZE": "100",
            "KEYGUARD_STORE_TIMEOUT": "0.5",
            "KEYGUARD_MANAGEMENT_TIMEOUT": "20",
            "KEYGUARD_HASH_WORKERS": "2",
        }
    )

    assert (settings.realm, settings.prefix) == ("AIaaS", "aiaas_live")
    assert list(settings.catalogue or ()) == ["inference:read", "inference:write", "admin"]
    assert settings.public == ("/healthz", "/ready")
    assert [p.reveal() for p in settings.peppers if isinstance(p, Secret)] == [PEPPER, OLDER]
    assert settings.require_https is True
    assert (settings.max_staleness, settings.cache_size) == (2.5, 100)
    assert (settings.store_timeout, settings.management_timeout) == (0.5, 20.0)
    assert settings.hash_workers == 2


def test_an_empty_environment_gives_the_defaults() -> None:
    assert repr(Settings.from_env({"KEYGUARD_REALM": " "})) == repr(Settings())


def test_what_is_given_here_wins_over_the_environment() -> None:
    settings = Settings.from_env({"KEYGUARD_REALM": "env"}, realm="here")

    assert settings.realm == "here"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KEYGUARD_REQUIRE_HTTPS", "maybe", "takes true or false, not 'maybe'"),
        ("KEYGUARD_MAX_STALENESS", "soon", "takes a number of seconds, not 'soon'"),
        ("KEYGUARD_CACHE_SIZE", "1.5", "takes a whole number, not '1.5'"),
    ],
)
def test_a_variable_that_can_t_be_read_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{name} {said}"):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    "name", ["KEYGUARD_PEPPERS", "KEYGUARD_REQUIRES_HTTPS", "KEYGUARD_CATALOGUE", "KEYGUARD_"]
)
def test_a_misspelt_variable_is_refused_not_ignored(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is no setting of keyguard's; there are"):
        Settings.from_env({name: "x"})


@pytest.mark.parametrize("name", ["KEYGUARD_PEPPER", "KEYGUARD_SCOPES"])
def test_a_list_that_is_set_and_empty_is_refused_not_ignored(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is set and holds nothing"):
        Settings.from_env({name: " , "})


def test_the_pepper_ring_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "peppers"
    file.write_text(f"{PEPPER}\n{OLDER}\n")

    settings = Settings.from_env({"KEYGUARD_PEPPER_FILE": str(file)})

    assert len(tuple(settings.peppers)) == 2


VALUES = {
    "KEYGUARD_REALM": "AIaaS",
    "KEYGUARD_HASHER": "sha256",
    "KEYGUARD_PUBLIC": "/healthz\n/ready",
    "KEYGUARD_SCOPES": "a:b\r\n\tc:d",
    "KEYGUARD_REQUIRE_HTTPS": "true",
    "KEYGUARD_CACHE_SIZE": "100",
    "KEYGUARD_MAX_STALENESS": "2.5",
    "KEYGUARD_DEFAULT_LIMITS": "100/minute;\ndaily=5000/day",
    "KEYGUARD_FAILURE_LIMIT": "9/minute",
    "KEYGUARD_PEPPER": f"{PEPPER}\n{OLDER}",
}


@pytest.mark.parametrize("name", VALUES)
def test_white_space_around_a_variable_does_not_count(name: str) -> None:
    read = [Settings.from_env({name: given}) for given in (VALUES[name], f" \t{VALUES[name]}\r\n")]

    assert repr(read[0]) != repr(Settings())
    assert repr(read[0]) == repr(read[1])
    assert [found.token_hasher.current for found in read] == [read[0].token_hasher.current] * 2


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x85", "\u2028", "\udcff"])
@pytest.mark.parametrize("name", [*VALUES, "KEYGUARD_CONFIG", "KEYGUARD_PEPPER_FILE"])
def test_a_control_character_in_a_variable_is_refused_and_the_value_is_not_shown(
    name: str, character: str
) -> None:
    value = VALUES.get(name, "the-file")

    with pytest.raises(ConfigurationError, match=f"^{name} holds a control character") as refusal:
        Settings.from_env({name: f"{value}{character}{value}"})
    assert value not in str(refusal.value)


@pytest.mark.parametrize("character", "\t\r\n")
def test_a_line_break_is_refused_where_a_variable_is_no_list(character: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^KEYGUARD_REALM holds a control character"):
        Settings.from_env({"KEYGUARD_REALM": f"a{character}b"})


def test_the_name_and_the_content_of_a_pepper_file_are_read_like_variables(tmp_path: Path) -> None:
    file = tmp_path / "peppers"
    file.write_text(f"\n {PEPPER}\r\n")

    settings = Settings.from_env({"KEYGUARD_PEPPER_FILE": f"{file}\n"})

    assert settings.token_hasher.current == Settings(peppers=[PEPPER]).token_hasher.current
    file.write_text(f"{PEPPER}\0\n")
    with pytest.raises(ConfigurationError, match=r"the pepper file .* holds a control") as refusal:
        Settings.from_env({"KEYGUARD_PEPPER_FILE": str(file)})
    assert PEPPER not in str(refusal.value)


def test_a_pepper_file_that_can_t_be_used_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ConfigurationError, match="holds no pepper"):
        Settings.from_env({"KEYGUARD_PEPPER_FILE": str(empty)})
    with pytest.raises(ConfigurationError, match=r"can't be read \(FileNotFoundError\)"):
        Settings.from_env({"KEYGUARD_PEPPER_FILE": str(tmp_path / "none")})
    with pytest.raises(ConfigurationError, match="not both"):
        Settings.from_env({"KEYGUARD_PEPPER_FILE": str(empty), "KEYGUARD_PEPPER": PEPPER})


def test_a_guard_takes_the_same_options() -> None:
    guard = Keyguard("memory://", catalogue={"admin": "All"}, public=["/healthz"])

    assert guard.settings.public == ("/healthz",)
    with pytest.raises(InvalidValueError, match="no token prefix"):
        Keyguard("memory://", prefix="-")


def test_what_kubernetes_sets_for_a_service_of_that_name_is_left_alone() -> None:
    Settings.from_env(
        {
            "KEYGUARD_SERVICE_HOST": "10.0.0.1",
            "KEYGUARD_SERVICE_PORT_HTTP": "80",
            "KEYGUARD_PORT": "tcp://10.0.0.1:80",
            "KEYGUARD_PORT_80_TCP_ADDR": "10.0.0.1",
        }
    )


def test_each_part_is_built_once() -> None:
    settings = Settings(websocket_protocol="keyguard.bearer", peppers=[PEPPER])

    for name in (
        "policy",
        "responder",
        "principal_fields",
        "token_protocol",
        "proxies",
        "token_hasher",
    ):
        assert getattr(settings, name) is getattr(settings, name)
    assert settings.rule_book() is settings.rule_book()
    assert settings.rule_book(public=["/healthz"]).paths == {"/healthz"}
    assert settings.rule_book().paths == frozenset()


def test_a_command_that_serves_no_http_builds_each_part_once_and_writes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Counter[str]()
    for kind in (Settings, RuleBook, Policy, TokenFormat, TokenHasher, Responder):
        counted(kind, built, monkeypatch)

    settings = Settings.from_env({"KEYGUARD_PEPPER": PEPPER})
    for _ in range(2):
        assert settings.policy.tokens
        assert settings.rule_book() is not None
        assert settings.token_hasher is not None

    assert built == {
        "Settings": 1,
        "RuleBook": 1,
        "Policy": 1,
        "TokenFormat": 1,
        "TokenHasher": 1,
    }


def counted(kind: type, built: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build: Any = vars(kind)["__init__"]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        built[kind.__name__] += 1
        build(self, *args, **kwargs)

    monkeypatch.setattr(kind, "__init__", init)


def test_the_documentation_names_each_setting_and_its_range() -> None:
    documented = dict(
        re.findall(r"^        (\w+): (.*(?:\n {12}.*)*)", Settings.__doc__ or "", re.M)
    )

    assert list(documented)[: len(fields(Settings))] == [field.name for field in fields(Settings)]
    for field in fields(Settings):
        said = " ".join(documented[field.name].split())
        if "range" in field.metadata:
            least, most = field.metadata["range"]
            assert said.endswith(f" From {least:,} to {most:,}."), field.name
        else:
            assert " From " not in said, field.name


def test_one_shot_iterables_are_read_once() -> None:
    settings = Settings(
        public=iter(["/b", "/a"]),
        rules=iter([Rule("/c", scopes=["a"])]),
        peppers=iter([PEPPER]),
        trusted_proxies=iter(["10.0.0.0/8"]),
        default_limits=iter(["1/minute"]),
        imported_formats=iter(["drf"]),
    )

    assert settings.public == ("/a", "/b")
    assert settings.rules == (Rule("/c", scopes=["a"]),)
    assert len(tuple(settings.peppers)) == 1
    assert settings.trusted_proxies == ("10.0.0.0/8",)
    assert settings.default_limits == (Limit("key-minute", "1/minute"),)
    assert settings.imported_formats == ("drf",)
    assert replace(settings) == settings


def test_imported_formats_are_read_in_order_and_become_part_of_the_policy() -> None:
    settings = Settings.from_env(
        {"KEYGUARD_IMPORTED_FORMATS": "sanctum, prefix:8 token", "KEYGUARD_PEPPER": PEPPER}
    )

    assert settings.imported_formats == ("sanctum", "prefix:8", "token")
    assert [form.name for form in settings.policy.foreign] == ["sanctum", "prefix:8", "token"]
    assert settings.policy.takes_bar
    assert not Settings().policy.takes_bar
    assert Settings().policy.foreign == ()


def test_the_keyword_arguments_of_guards_are_typed_as_the_settings_are() -> None:
    typed = {name: kind.__forward_arg__ for name, kind in Options.__annotations__.items()}

    assert typed == {setting.name: setting.type for setting in fields(Settings)}
