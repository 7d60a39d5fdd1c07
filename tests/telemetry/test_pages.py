"""What docs/metrics.md and docs/opentelemetry.md show does what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.testclient import TestClient

from keyguard import Keyguard
from tests.examples.pages import run
from tests.telemetry.measured import parsed, sample


@pytest.mark.usefixtures("patience")
def test_the_service_of_the_metrics_page_serves_its_metrics_to_keys_with_the_scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Keyguard("sqlite:///keys.db") as owner:  # as the quickstart has left it
        owner.migrate()
    names = run("docs/metrics.md", 0, {"__name__": "docs"})
    guard = names["guard"]

    async def issue(*scopes: str) -> str:
        issued = await guard.keys.issue(organization="acme", name="scraper", scopes=scopes)
        return str(issued.token.reveal())

    with TestClient(names["app"]) as client:
        call = client.portal.call  # type: ignore[union-attr]
        call(guard.organizations.create, "acme")
        tokens = [call(issue), call(issue, "metrics:read")]
        answers = [
            client.get("/metrics", headers={"Authorization": f"Bearer {token}"}) for token in tokens
        ]
        call(guard.aclose)

    assert [answer.status_code for answer in answers] == [403, 200]
    assert answers[1].headers["Content-Type"] == CONTENT_TYPE_LATEST
    samples = parsed(answers[1].text)
    assert sample(samples, "keyguard_decisions_total", error_type="scope_missing") == 1


def test_the_function_of_the_metrics_page_serves_what_all_processes_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    assert run("docs/metrics.md", 1, {"__name__": "docs"})["exposition"]() == b""


def test_the_guard_of_the_opentelemetry_page_is_measured() -> None:
    names: dict[str, Any] = run("docs/opentelemetry.md", 0, {"__name__": "docs"})
    with names["guard"] as guard:
        guard.organizations.create("acme")
        metrics = names["reader"].get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    names["provider"].shutdown()

    assert "keyguard.store.operation.duration" in {metric.name for metric in metrics}
