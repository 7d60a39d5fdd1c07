"""No token is sent to an error tracker, whatever a framework's frames hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from keyguard.admin.console.form_tokens import COOKIE as FORM
from keyguard.admin.sessions import COOKIE
from keyguard.telemetry.scrubbing import scrub

DRAWN = "s-_1" * 10 + "abc"
TOKEN = "aiaas_live_gXFWnjQ6Wxqw8eWK_" + "a1B2" * 13


def test_no_token_is_sent_to_sentry() -> None:
    program = [sys.executable, "-m", "tests.telemetry.sentry_program"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    for framework, token, sent in json.loads(done.stdout):
        head, _, secret = token.rpartition("_")
        for part in ("can't do with", "breadcrumbs", "transaction", "http.client", "got %s"):
            assert part in sent, framework
        assert f"{head}_[Filtered]" in sent, framework
        assert secret[:12] not in sent, framework


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (TOKEN, "aiaas_live_gXFWnjQ6Wxqw8eWK_[Filtered]"),
        (TOKEN[:40], "aiaas_live_gXFWnjQ6Wxqw8eWK_[Filtered]"),
        (TOKEN.encode(), b"aiaas_live_gXFWnjQ6Wxqw8eWK_[Filtered]"),
        (f"Bearer {TOKEN}", "Bearer aiaas_live_gXFWnjQ6Wxqw8eWK_[Filtered]"),
        ("Bearer 7|abcdefghij then", "Bearer [Filtered] then"),
        ({"Authorization": "odd"}, {"Authorization": "[Filtered]"}),
        ({"HTTP_X_API_KEY": "odd"}, {"HTTP_X_API_KEY": "[Filtered]"}),
        ([[b"authorization", b"odd"]], [[b"authorization", "[Filtered]"]]),
        ([["b'x-api-key'", "b'odd'"]], [["b'x-api-key'", "[Filtered]"]]),
        (({"a": (TOKEN, 7, None)},), ({"a": ("aiaas_live_gXFWnjQ6Wxqw8eWK_[Filtered]", 7, None)},)),
        ({"REDIRECT_HTTP_AUTHORIZATION": "odd"}, {"REDIRECT_HTTP_AUTHORIZATION": "[Filtered]"}),
        (f"a=b; {COOKIE}={DRAWN}; c=d", f"a=b; {COOKIE}=[Filtered]; c=d"),
        (f"[(b'cookie', b'{FORM}={DRAWN}')]", f"[(b'cookie', b'{FORM}=[Filtered]')]"),
        ({COOKIE: DRAWN, "c": "d"}, {COOKIE: "[Filtered]", "c": "d"}),
        (f"https://x/keys/sign-in/{DRAWN}?a=b", "https://x/keys/sign-in/[Filtered]?a=b"),
        ("a bearer of news; api_key_name", "a bearer of news; api_key_name"),
    ],
)
def test_what_is_scrubbed(value: object, wanted: object) -> None:
    before = json.dumps(value, default=str)

    assert scrub(value) == wanted
    assert json.dumps(value, default=str) == before
