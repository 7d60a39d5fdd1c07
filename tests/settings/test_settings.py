"""Settings: frozen, validated once, readable from the environment."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from inspect import cleandoc
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
        ({"prefix": "Nope"}, "not a valid token prefix"),
        ({"catalogue": {"a b": ""}}, "is not a valid scope"),
        ({"public": "/healthz"}, r"write \['/healthz'\]"),
        ({"public": ["healthz"]}, "(not an exact path|can't be the path)"),
        ({"public": ["/a/../b"]}, "(not an exact path|can't be the path)"),
        ({"public": ["/a//b"]}, "(not an exact path|can't be the path)"),
        ({"public": ["/a%2fb"]}, "(not an exact path|can't be the path)"),
        ({"public": ["/a?b"]}, "(not an exact path|can't be the path)"),
        ({"public": ["/*"]}, "(not an exact path|can't be the path)"),
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
        ({"prefix": 5}, "not a valid token prefix"),
        ({"catalogue": ["a:b"]}, "mapping of scope to description"),
        ({"public": None}, "public takes a list of paths"),
        ({"public": ["/\ud800"]}, "(not an exact path|can't be the path)"),
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
        ({"imported_formats": ["jwt"]}, "'jwt' is not a valid format of imported tokens"),
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
        (
            "KEYGUARD_MAX_STALENESS",
            "soon",
            "takes .* from 0 to 3,600, not 'soon': write a number, or a length of time",
        ),
        (
            "KEYGUARD_CACHE_SIZE",
            "1.5",
            "takes a whole number of tokens from 0 to 10,000,000, not '1.5': write digits alone",
        ),
    ],
)
def test_a_variable_that_can_t_be_read_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{name} {said}"):
        Settings.from_env({name: value})


NOT_VALID: list[tuple[str, object, str, str]] = [
    # a setting, a value that it does not take, the same as a variable and in TOML
    ("realm", "é", "é", '"é"'),
    ("prefix", "Nope", "Nope", '"Nope"'),
    ("public", ["healthz"], "healthz", '["healthz"]'),
    ("trusted_proxies", ["x"], "x", '["x"]'),
    ("carriers", ["x"], "x", '["x"]'),
    ("hasher", "md5", "md5", '"md5"'),
    ("websocket_protocol", "a b", "a b", '"a b"'),
    ("cache_size", -1, "-1", "-1"),
    ("max_staleness", 3601, "3601", "3601"),
    ("default_limits", ["x"], "x/y", '["x"]'),
    ("failure_limit", "x", "x", '"x"'),
    ("on_limiter_error", "x", "x", '"x"'),
    ("requesters", "x", "x", '"x"'),
    ("keep_ended_keys", 86_400, "86400", "86400"),
    ("keep_audit", 86_400, "86400", "86400"),
    ("imported_formats", ["x"], "x", '["x"]'),
]


@pytest.mark.parametrize(("name", "value", "text", "toml"), NOT_VALID)
def test_a_value_that_is_not_valid_is_named_with_the_place_that_it_comes_from(
    name: str, value: Any, text: str, toml: str, tmp_path: Path
) -> None:
    file = tmp_path / "keyguard.toml"
    file.write_text(f"{name} = {toml}\n")

    with pytest.raises(InvalidValueError, match=f"^{name}[: ]"):
        Settings(**{name: value})
    with pytest.raises(InvalidValueError, match=f"^KEYGUARD_{name.upper()}[: ]"):
        Settings.from_env({f"KEYGUARD_{name.upper()}": text})
    with pytest.raises(InvalidValueError, match=f"^{name} in '{file}'[: ]"):
        Settings.from_file(file, {})
    with pytest.raises(InvalidValueError, match=f"^{name}[: ]"):
        Settings.from_file(file, {}, **{name: value})


@pytest.mark.parametrize(
    "field",
    [field for field in fields(Settings) if "range" in field.metadata],
    ids=lambda field: field.name,
)
def test_a_number_is_asked_for_with_its_unit_and_its_range(field: Any) -> None:
    least, most, unit = field.metadata["range"]
    if field.name == "keep_ended_keys":
        least = "1,123,200 (13 days)"
    elif field.name == "keep_audit":
        least = "2,592,000 (30 days)"
    else:
        least = f"{least:,}"
    for value in (-1, most + 1, "1"):
        with pytest.raises(InvalidValueError) as refused:
            Settings(**{field.name: value})
        assert f"number of {unit} from {least} to {most:,}" in str(refused.value)


def test_a_pepper_that_is_not_valid_is_named_by_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text("short")
    with pytest.raises(InvalidValueError, match=r"^KEYGUARD_PEPPER: .*at least 32"):
        Settings.from_env({"KEYGUARD_PEPPER": "short"})
    with pytest.raises(InvalidValueError, match=r"^KEYGUARD_PEPPER_FILE: .*at least 32"):
        Settings.from_env({"KEYGUARD_PEPPER_FILE": str(tmp_path / "pepper")})


def test_what_requests_may_need_is_kept_by_the_settings() -> None:
    with pytest.raises(InvalidValueError, match="because a request for a key may") as refused:
        Settings(keep_ended_keys=13 * 86_400 - 1)
    assert "from 1,123,200 (13 days)" in str(refused.value)
    with pytest.raises(InvalidValueError, match=r"^keep_audit .* from 3,456,000 \(40 days\)"):
        Settings(request_lifetime=20 * 86_400, claim_lifetime=10 * 86_400, keep_audit=30 * 86_400)
    assert Settings(keep_ended_keys=13 * 86_400).keep_ended_keys == 13 * 86_400
    short = Settings(request_lifetime=60, claim_lifetime=60, keep_ended_keys=86_400)
    assert short.keep_ended_keys == 86_400


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("KEYGUARD_PEPPERS", r": did you mean `KEYGUARD_PEPPER`\?$"),
        ("KEYGUARD_REQUIRES_HTTPS", r": did you mean `KEYGUARD_REQUIRE_HTTPS`\?$"),
        ("KEYGUARD_STALENESS", r": did you mean `KEYGUARD_MAX_STALENESS`\?$"),
        ("KEYGUARD_CATALOGUE", "; use one of: KEYGUARD_"),
        ("KEYGUARD_", "; use one of: KEYGUARD_"),
    ],
)
def test_a_misspelt_variable_is_refused_not_ignored(name: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is not a setting of keyguard{advice}"):
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
    with pytest.raises(InvalidValueError, match="not a valid token prefix"):
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
    told = cleandoc(Settings.__doc__ or "")  # Python 3.13 does so itself
    documented = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", told, re.M))

    assert list(documented)[: len(fields(Settings))] == [field.name for field in fields(Settings)]
    for field in fields(Settings):
        said = " ".join(documented[field.name].split())
        if "range" in field.metadata:
            least, most, _ = field.metadata["range"]
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


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"hasher": "hmac-sha256", "peppers": ["p" * 32], "usage_bucket": "x"}, "usage_bucket"),
        ({"require_https": True, "revoke_exposed": True, "max_staleness": -1}, "max_staleness"),
        (
            {
                "request_lifetime": 60,
                "claim_lifetime": 60,
                "keep_ended_keys": 90_000,
                "imported_formats": ["x"],
            },
            "imported_formats",
        ),
    ],
)
def test_a_setting_that_is_valid_beside_another_is_not_blamed_for_a_third(
    settings: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{culprit}\\b"):
        Settings(**settings)


def test_a_subclass_with_a_field_of_its_own_says_what_is_wrong_with_a_setting() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Settings):
        team: str

    with pytest.raises(InvalidValueError, match="prefix"):
        Mine(team="a", prefix="no prefix")
