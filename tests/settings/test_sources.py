"""Settings from a TOML file, beside the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyguard import ConfigurationError, InvalidValueError, Limit, Rule, Settings
from tests.examples.pages import page

FILE = """
realm = "AIaaS"
prefix = "aiaas_live"
public = ["/healthz"]
require_https = true
max_staleness = 2.5
trusted_proxies = ["10.0.0.0/8", "unix"]
default_limits = ["100/minute", { name = "org-day", rate = "5000/day", per = "organization" }]

[catalogue]
"inference:read" = "Read"
admin = { description = "All", implies = ["inference:read"] }

[principal_headers]
X-Key-Id = "key_id"

[[rules]]
path = "/v1/models/{model_id}"
methods = ["GET"]
scopes = ["inference:read"]
limits = ["60/minute", { name = "models", rate = "9/second" }]
cost = 2

[[rules]]
path = "/static/{path:path}"
public = true

[[rules]]
path = "/app/{path:path}"
also = "session"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keyguard.toml"
    path.write_text(FILE)
    return path


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keyguard.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_python_would(file: Path) -> None:
    settings = Settings.from_file(file, {})
    assert settings.realm == "AIaaS"
    assert settings.require_https
    assert settings.max_staleness == 2.5
    assert settings.public == ("/healthz",)
    assert settings.trusted_proxies == ("10.0.0.0/8", "unix")
    assert settings.principal_headers == {"X-Key-Id": "key_id"}
    assert settings.rules == (
        Rule(
            "/v1/models/{model_id}",
            methods=["GET"],
            scopes=["inference:read"],
            limits=["60/minute", Limit("models", "9/second")],
            cost=2,
        ),
        Rule("/static/{path:path}", public=True),
        Rule("/app/{path:path}", also="session"),
    )
    policy = settings.policy
    assert [limit.name for limit in policy.default_limits] == ["key-minute", "org-day"]
    assert policy.catalogue is not None
    assert policy.catalogue.implied_by(frozenset({"admin"})) == {"admin", "inference:read"}


def test_the_environment_comes_before_the_file_and_arguments_before_both(file: Path) -> None:
    environ = {"KEYGUARD_REALM": "env", "KEYGUARD_PREFIX": "env", "KEYGUARD_PUBLIC": "/a /b"}
    settings = Settings.from_file(file, environ, prefix="here")
    assert (settings.realm, settings.prefix, settings.public) == ("env", "here", ("/a", "/b"))


def test_a_variable_may_name_the_file(file: Path) -> None:
    assert Settings.from_env({"KEYGUARD_CONFIG": str(file)}).realm == "AIaaS"
    assert Settings.from_env({"KEYGUARD_CONFIG": " "}) == Settings.from_env({})


def test_peppers_come_from_the_environment(file: Path) -> None:
    pepper = "qZ7xW1cV9bN3mK5jH8gF2dS4aP6oI0uY"
    settings = Settings.from_file(file, {"KEYGUARD_PEPPER": pepper})
    assert len(tuple(settings.peppers)) == 1


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("realm =", ConfigurationError, "is not valid TOML: Invalid value"),
        (
            'relm = "x"',
            ConfigurationError,
            r"'relm' in .* is not a setting of keyguard: did you mean `realm`\?$",
        ),
        (
            'colour = "x"',
            ConfigurationError,
            "'colour' in .* is not a setting of keyguard; use one of: a",
        ),
        ('peppers = ["x"]', ConfigurationError, "they are secrets, and go into KEYGUARD_PEPPER"),
        ("require_https = 1", InvalidValueError, "require_https in .* takes True or False"),
        ('public = "/a"', InvalidValueError, r"write \['/a'\]"),
        ("catalogue = 1", InvalidValueError, "catalogue in .*: it is a table such as"),
        ("catalogue = { a = 1 }", InvalidValueError, "scope 'a' is a table with description"),
        (
            'catalogue = { a = { about = "" } }',
            InvalidValueError,
            "scope 'a' has no 'about'; use one of: description, implies",
        ),
        ("rules = 1", InvalidValueError, r"begin each with \[\[rules\]\]"),
        ("rules = [1]", InvalidValueError, "rule 1 is a table"),
        ("[[rules]]\npublic = true", InvalidValueError, "rule 1 has no path"),
        (
            '[[rules]]\npath = "/a"\nscope = ["a"]',
            InvalidValueError,
            r"rule 1 has no 'scope': did you mean `scopes`\?$",
        ),
        (
            '[[rules]]\npath = "/a"\nverbs = ["GET"]',
            InvalidValueError,
            "rule 1 has no 'verbs'; use one of: also, any_of, cost, limits, methods, path, public, "
            "scopes",
        ),
        ('[[rules]]\npath = "a"', InvalidValueError, "rules in .*'a' can't be the path"),
        (
            '[[rules]]\npath = "/a"\nlimits = [{ rate = "1/day" }]',
            InvalidValueError,
            "has a name and a rate",
        ),
        (
            '[[rules]]\npath = "/a"\nlimits = [{ name = "x", rate = "1/day", for = "key" }]',
            InvalidValueError,
            "a limit has no 'for'",
        ),
        ('default_limits = "1/fortnight"', InvalidValueError, "1/fortnight"),
        ('[principal_headers]\nX-Key = "token"', InvalidValueError, "not 'token'"),
        ('trusted_proxies = ["*"]', InvalidValueError, "is not a valid network"),
        (
            'catalogue = { a = "" }\n[[rules]]\npath = "/a"\nscopes = ["b"]',
            InvalidValueError,
            "unknown scope 'b'",
        ),
        ("revoke_exposed = true", ConfigurationError, "goes with require_https=True"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(
    tmp_path: Path, text: str, kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why):
        Settings.from_file(written(tmp_path, text), {})


def test_white_space_around_the_texts_of_a_file_does_not_count(tmp_path: Path) -> None:
    text = """
        realm = " AIaaS\\n"
        public = ["/healthz\\n"]
        catalogue = { a = "What it does,\\nin two lines\\n" }
        principal_headers = { X-Key-Id = "key_id " }
        rules = [{ path = " /a", limits = [{ name = "a ", rate = " 1/day" }] }]
    """

    settings = Settings.from_file(written(tmp_path, text), {})

    assert (settings.realm, settings.public) == ("AIaaS", ("/healthz",))
    assert settings.principal_headers == {"X-Key-Id": "key_id"}
    assert settings.rules == (Rule("/a", limits=[Limit("a", "1/day")]),)
    assert settings.policy.catalogue is not None
    assert settings.policy.catalogue.describe("a") == "What it does,\nin two lines"


@pytest.mark.parametrize(
    "text",
    [
        r'realm = "hid\u0000den"',
        r'public = ["/a", "/hid\nden"]',
        r'rules = [{ path = "/a", scopes = ["hid\u001bden"] }]',
        r'catalogue = { a = { description = "hid\u0007den" } }',
    ],
)
def test_a_control_character_in_a_file_is_refused_and_the_value_is_not_shown(
    tmp_path: Path, text: str
) -> None:
    name = text.partition(" ")[0]

    with pytest.raises(ConfigurationError, match=f"^{name} in .* holds a control") as refusal:
        Settings.from_file(written(tmp_path, text), {})
    assert "den" not in str(refusal.value)


def test_a_file_that_can_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be read \(FileNotFoundError\)"):
        Settings.from_file(tmp_path / "none.toml", {})
    with pytest.raises(ConfigurationError, match=r"can't be read \(IsADirectoryError\)"):
        Settings.from_env({"KEYGUARD_CONFIG": str(tmp_path)})
    (tmp_path / "latin.toml").write_bytes(b'realm = "\xe9"')
    with pytest.raises(ConfigurationError, match=r"can't be read \(UnicodeDecodeError\)"):
        Settings.from_file(tmp_path / "latin.toml", {})


def test_the_page_on_environment_variables_has_each_of_them() -> None:
    table = set(re.findall(r"^\| `(KEYGUARD_\w+)` \|", page("docs/environment.md"), re.MULTILINE))
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({"KEYGUARD_NONSENSE": "1"})

    known = set(re.findall(r"KEYGUARD_\w+", str(refused.value))) - {"KEYGUARD_NONSENSE"}
    assert table == known, "docs/environment.md has a row for each variable"


@pytest.mark.parametrize(
    ("text", "seconds"), [("400d", 34_560_000), ("P400D", 34_560_000), ("34560000", 34_560_000)]
)
def test_a_length_of_time_is_written_as_on_the_command_line(
    tmp_path: Path, text: str, seconds: int
) -> None:
    (tmp_path / "keyguard.toml").write_text(f'keep_audit = "{text}"\nmax_staleness = "0s"\n')
    assert Settings.from_env({"KEYGUARD_KEEP_ENDED_KEYS": text}).keep_ended_keys == seconds
    assert Settings.from_env({"KEYGUARD_KEEP_AUDIT": "none"}).keep_audit is None
    if text != "34560000":  # in the file, a number is no text
        settings = Settings.from_file(tmp_path / "keyguard.toml", {})
        assert (settings.keep_audit, settings.max_staleness) == (seconds, 0)


def test_a_length_of_time_that_can_not_be_read_is_refused_in_the_words_of_its_place(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        InvalidValueError,
        match=r"^KEYGUARD_KEEP_AUDIT .* or none, not '400x': write a number, or a length",
    ):
        Settings.from_env({"KEYGUARD_KEEP_AUDIT": "400x"})
    with pytest.raises(InvalidValueError, match=r"^KEYGUARD_KEEP_AUDIT .* or none, not 86400\.0$"):
        Settings.from_env({"KEYGUARD_KEEP_AUDIT": "1d"})
    (tmp_path / "keyguard.toml").write_text('keep_audit = "3600"\n')
    with pytest.raises(InvalidValueError, match=r"^keep_audit in .* or None, not '3600'$"):
        Settings.from_file(tmp_path / "keyguard.toml", {})
