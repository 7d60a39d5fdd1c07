"""Common HTTP clients: each reaches both examples over loopback."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import httpx
import pytest
import requests

from tests.examples.running import Service, Store, curl


@dataclass(frozen=True)
class Got:
    status: int
    challenge: str | None
    body: str


def with_curl(url: str, token: str | None, body: str | None) -> Got:
    command = [curl(), "-sS", "-i", "--max-time", "60", url]
    if token is not None:
        command += ["-H", f"Authorization: Bearer {token}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "--data", body]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    top, _, rest = said.replace("\r\n", "\n").partition("\n\n")
    first, *lines = top.splitlines()
    parted = (line.partition(": ") for line in lines)
    fields = {name.lower(): value for name, _, value in parted}
    return Got(int(first.split()[1]), fields.get("www-authenticate"), rest)


def headers_of(token: str | None, body: str | None) -> dict[str, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return headers | ({} if body is None else {"Content-Type": "application/json"})


def with_requests(url: str, token: str | None, body: str | None) -> Got:
    method = "GET" if body is None else "POST"
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(
            method, url, headers=headers_of(token, body), data=body, timeout=60
        )
    return Got(answer.status_code, answer.headers.get("WWW-Authenticate"), answer.text)


def with_httpx(url: str, token: str | None, body: str | None) -> Got:
    method = "GET" if body is None else "POST"
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.request(method, url, headers=headers_of(token, body), content=body)
    return Got(answer.status_code, answer.headers.get("WWW-Authenticate"), answer.text)


def with_aiohttp(url: str, token: str | None, body: str | None) -> Got:
    async def ask() -> Got:
        method = "GET" if body is None else "POST"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers_of(token, body), data=body) as answer,
        ):
            challenge = answer.headers.get("WWW-Authenticate")
            return Got(answer.status, challenge, await answer.text())

    return asyncio.run(ask())


FETCH = """
const [url, token, body] = JSON.parse(process.argv[1]);
const headers = {};
if (token !== null) headers.Authorization = `Bearer ${token}`;
if (body !== null) headers["Content-Type"] = "application/json";
const method = body === null ? "GET" : "POST";
const answer = await fetch(url, {method, headers, body});
const challenge = answer.headers.get("WWW-Authenticate");
console.log(JSON.stringify([answer.status, challenge, await answer.text()]));
"""


def with_fetch(url: str, token: str | None, body: str | None) -> Got:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here: install nodejs")
    asked = json.dumps([url, token, body])
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    said = subprocess.run(
        [node, "--input-type=module", "-e", FETCH, asked],
        check=True, capture_output=True, text=True, timeout=60, env=environ,
    ).stdout  # fmt: skip
    return Got(*json.loads(said))


CLIENTS: dict[str, Callable[[str, str | None, str | None], Got]] = {
    "curl": with_curl,
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
    "fetch": with_fetch,
}


@pytest.mark.campaign("redis-flask", "sqlite-starlette")
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_is_let_in_refused_and_told_why(
    service: Service, store: Store, client: str
) -> None:
    ask = CLIENTS[client]
    models, inference = f"{service.url}/v1/models", f"{service.url}/v1/inference"
    prompt = json.dumps({"model": "echo", "prompt": "Hello"})
    realm = 'Bearer realm="AIaaS"'

    assert ask(f"{service.url}/healthz", None, None).status == 200
    assert ask(models, store.token("reader"), None).status == 200
    for got, status, challenge in (
        (ask(models, None, None), 401, realm),
        (ask(models, store.token("revoked"), None), 401, f'{realm}, error="invalid_token"'),
        (
            ask(inference, store.token("reader"), prompt),
            403,
            f'{realm}, error="insufficient_scope", scope="inference:write"',
        ),
    ):
        assert (got.status, got.challenge) == (status, challenge)
        assert json.loads(got.body)["status"] == status


@pytest.mark.parametrize("client", CLIENTS)
def test_an_upload_of_every_client_reaches_the_application(
    service: Service, store: Store, client: str
) -> None:
    said = json.dumps({"model": "echo", "prompt": "Hello"})

    got = CLIENTS[client](f"{service.url}/v1/inference", store.token("writer"), said)

    assert got.status == 200
    assert json.loads(got.body)["output"] == "Hello"
