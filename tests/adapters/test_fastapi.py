"""FastAPI: the dependency, through routers and sockets, and what its OpenAPI document tells."""

import asyncio
import inspect
import json
import threading
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.testclient import WebSocketDenialResponse

from keyguard import (
    AccessDenied,
    ConfigurationError,
    InvalidValueError,
    Limit,
    Principal,
    Rule,
    rate_limit,
    require_scopes,
)
from keyguard.adapters import asgi
from keyguard.adapters.fastapi import (
    KeyguardMiddleware,
    KeyguardPrincipal,
    describe,
    keyguard_principal,
)
from tests.adapters.stacks import Answer, Request, call_asgi
from tests.adapters.test_cases import MISSING, NEEDS_WRITE
from tests.world import World

Anyone = Annotated[Principal, Security(keyguard_principal)]
Reader = Annotated[Principal, Security(keyguard_principal, scopes=["inference:read"])]
Writer = Annotated[Principal, Security(keyguard_principal, scopes=["inference:write"])]
PROBLEM = {"schema": {"$ref": "#/components/schemas/KeyguardProblem"}}


@pytest.fixture
def world() -> World:
    return World()


def guarded(world: World, app: FastAPI | None = None, **options: Any) -> FastAPI:
    app = app or FastAPI()
    app.add_middleware(KeyguardMiddleware, guard=world.async_guard, **options)
    describe(app)
    return app


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def call(app: Any, path: str, token: str | None = None, **options: Any) -> Answer:
    fields = () if token is None else (b"Bearer " + token.encode(),)
    return call_asgi(app, Request(path, authorization=fields, **options))


def operation(app: FastAPI, path: str, method: str = "get") -> dict[str, Any]:
    found: dict[str, Any] = app.openapi()["paths"][path][method]
    return found


def scopes_of(app: FastAPI, path: str, method: str = "get") -> list[list[str]]:
    return [way["KeyguardBearer"] for way in operation(app, path, method).get("security", [])]


def test_the_dependency_gives_the_principal_on_the_event_loop(world: World) -> None:
    app = guarded(world)
    here = threading.get_ident()

    @app.get("/")
    async def endpoint(principal: Anyone) -> dict[str, Any]:
        return {"key": principal.key_id, "organization": principal.organization}

    @app.get("/thread")
    def in_a_thread(principal: Anyone) -> dict[str, Any]:
        return {"key": principal.key_id, "elsewhere": threading.get_ident() != here}

    issued = world.issue()
    with TestClient(app) as client:
        answers = [client.get(p, headers=bearer(issued.token.reveal())) for p in ("/", "/thread")]

    assert answers[0].json() == {"key": issued.key.id, "organization": world.acme.id}
    assert answers[1].json() == {"key": issued.key.id, "elsewhere": True}
    assert inspect.iscoroutinefunction(KeyguardPrincipal.__call__)


def test_a_dependency_s_refusal_has_the_contract_s_bytes(world: World) -> None:
    app = guarded(world)

    @app.get("/")
    async def endpoint(principal: Writer) -> None: ...

    assert call(app, "/") == MISSING
    assert call(app, "/", world.token("inference:read")) == NEEDS_WRITE
    assert call(app, "/", world.token("inference:*")).status == 200


def test_scopes_add_up_through_nested_dependencies(world: World) -> None:
    app = guarded(world)

    async def reader(
        principal: Reader, security_scopes: SecurityScopes
    ) -> tuple[Principal, list[str]]:
        return principal, security_scopes.scopes

    async def nested(found: Annotated[Any, Security(reader, scopes=["analytics:read"])]) -> Any:
        return found

    @app.get("/")
    async def endpoint(found: Annotated[Any, Security(nested, scopes=["admin"])]) -> list[str]:
        return found[1]

    assert scopes_of(app, "/") == [["admin", "analytics:read", "inference:read"]]
    for missing in ("inference:read", "analytics:read", "admin"):
        held = {"inference:read", "analytics:read", "admin"} - {missing}
        answer = call(app, "/", world.token(*held))
        assert answer.status == 403
        challenge = answer.header("www-authenticate")
        assert challenge is not None
        assert challenge.endswith('scope="admin analytics:read inference:read"')
    answer = call(app, "/", world.token("inference:read", "analytics:read", "admin"))
    assert answer.status == 200
    assert set(json.loads(answer.body)) >= {
        "admin",
        "analytics:read",
    }  # FastAPI 0.115 adds the last one


def test_routers_and_included_routers_ask_for_scopes(world: World) -> None:
    app = FastAPI()
    inner = APIRouter(dependencies=[Security(keyguard_principal, scopes=["inference:read"])])
    outer = APIRouter(prefix="/v1")

    @inner.get("/models/{model_id}")
    async def endpoint(model_id: str, principal: Writer) -> str:
        return principal.key_id

    outer.include_router(inner, prefix="/inner")
    app.include_router(
        outer, dependencies=[Security(keyguard_principal, scopes=["analytics:read"])]
    )
    guarded(world, app)
    path = "/v1/inner/models/x"

    assert call(app, path, world.token("inference:read", "inference:write")).status == 403
    assert call(app, path, world.token("inference:read", "analytics:read")).status == 403
    assert call(app, path, world.token("inference:write", "analytics:read")).status == 403
    assert call(app, path, world.token("inference:*", "analytics:read")).status == 200
    assert scopes_of(app, "/v1/inner/models/{model_id}") == [
        ["analytics:read", "inference:read", "inference:write"]
    ]


def test_without_the_middleware_nobody_is_let_in(world: World) -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(principal: Anyone) -> None: ...

    with pytest.raises(ConfigurationError, match="outside keyguard's middleware"):
        TestClient(app).get("/", headers=bearer(world.token()))


def test_on_a_public_path_the_dependency_asks_for_a_key(world: World) -> None:
    app = guarded(world)

    @app.get("/open")
    async def endpoint(principal: Anyone) -> None: ...

    assert call(app, "/open", world.token()) == MISSING


def test_an_optional_dependency_gives_nobody_on_a_public_path(world: World) -> None:
    optional = KeyguardPrincipal(auto_error=False)
    app = guarded(world)

    @app.get("/open")
    @app.get("/guarded")
    async def endpoint(
        principal: Annotated[Principal | None, Security(optional, scopes=["inference:read"])],
    ) -> str:
        return principal.key_id if principal else "nobody"

    issued = world.issue("inference:read")
    assert call(app, "/open").body == b'"nobody"'
    assert call(app, "/guarded", issued.token.reveal()).body == f'"{issued.key.id}"'.encode()
    assert call(app, "/guarded") == MISSING
    assert call(app, "/guarded", world.token()).status == 403
    assert "security" not in operation(app, "/open")
    assert scopes_of(app, "/guarded") == [["inference:read"]]


def test_dependencies_decorators_and_limits_go_together(world: World) -> None:
    here = World(options={"default_limits": [Limit("key-minute", "9/minute")]})
    app = FastAPI()
    router = APIRouter(prefix="/v1")

    @router.post("/inference")
    @require_scopes("inference:write")
    @rate_limit("2/minute", name="infer")
    async def endpoint(principal: Reader) -> str:
        return principal.key_id

    app.include_router(router)
    guarded(here, app)
    issued, reader = here.issue("inference:*"), here.issue("inference:read")
    writer = here.issue("inference:write")

    def left(key_id: str) -> int:
        (status,) = asyncio.run(here.async_guard.keys.limits(key_id))
        return status.remaining

    def post(token: str) -> Answer:
        return call(app, "/v1/inference", token, method="POST")

    assert post(reader.token.reveal()).status == 403
    assert post(writer.token.reveal()).status == 403
    assert [left(reader.key.id), left(writer.key.id)] == [9, 9]
    answers = [post(issued.token.reveal()) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert left(issued.key.id) == 7
    assert scopes_of(app, "/v1/inference", "post") == [["inference:read", "inference:write"]]


@pytest.mark.parametrize("how", ["dependency", "decorator", "router"])
def test_a_missing_scope_is_answered_before_a_limit(how: str) -> None:
    here = World(options={"default_limits": [Limit("key-minute", "1/minute")]})
    app = FastAPI()
    asked = [Security(keyguard_principal, scopes=["inference:write"])]
    router = APIRouter(dependencies=asked if how == "router" else [])

    @router.get("/", dependencies=asked if how == "dependency" else [])
    async def endpoint() -> None: ...

    @router.get("/decorated")
    @require_scopes("inference:write")
    async def decorated() -> None: ...

    @router.get("/else")
    async def other() -> None: ...

    if how != "router":
        app.include_router(router)
    else:
        app.include_router(router, prefix="/v1")
        app.get("/else")(other)
    guarded(here, app)
    token = here.token("inference:read")
    path = {"dependency": "/", "decorator": "/decorated", "router": "/v1/"}[how]

    assert call(app, "/else", token).status == 200
    assert call(app, "/else", token).status == 429
    assert call(app, path, token) == NEEDS_WRITE


def test_the_caller_s_scope_stays_as_it_was_where_a_limit_looks_for_the_route(
    world: World,
) -> None:
    app = FastAPI()
    router = APIRouter()

    @router.get("/")
    @rate_limit("2/minute")
    async def endpoint() -> None: ...

    app.include_router(router)
    # call_asgi looks at the scope.
    assert call(asgi.KeyguardMiddleware(app, world.async_guard), "/", world.token()).status == 200


@pytest.mark.parametrize("included", [False, True])
def test_websockets_are_refused_before_they_are_accepted(world: World, included: bool) -> None:
    app = FastAPI()
    router = APIRouter() if included else app

    @router.websocket("/")
    async def endpoint(websocket: WebSocket, principal: Writer) -> None:
        await websocket.accept()
        await websocket.send_text(principal.key_id)
        await websocket.close()

    if isinstance(router, APIRouter):
        app.include_router(router)
    client = TestClient(guarded(world, app))
    issued = world.issue("inference:write")

    with client.websocket_connect("/", headers=bearer(issued.token.reveal())) as socket:
        assert socket.receive_text() == issued.key.id
    for headers, expected in (({}, MISSING), (bearer(world.token("admin")), NEEDS_WRITE)):
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("/", headers=headers),
        ):
            pass
        assert refused.value.status_code == expected.status
        assert refused.value.content == expected.body


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_dependency_s_scope_outside_the_catalogue_stops_the_start(
    world: World, kind: str
) -> None:
    app = FastAPI()
    router = APIRouter(dependencies=[Security(keyguard_principal, scopes=["inference:reed"])])

    @router.get("/") if kind == "http" else router.websocket("/")
    async def endpoint() -> None: ...

    app.include_router(router)
    with (
        pytest.raises(InvalidValueError, match="unknown scope 'inference:reed'"),
        TestClient(guarded(world, app)),
    ):
        pass


def test_a_malformed_scope_stops_the_start_without_a_catalogue() -> None:
    app = FastAPI(dependencies=[Security(keyguard_principal, scopes=["inference write"])])

    @app.get("/")
    async def endpoint() -> None: ...

    with (
        pytest.raises(InvalidValueError, match="is not a valid scope"),
        TestClient(guarded(World({"catalogue": None}), app)),
    ):
        pass


def test_an_application_may_handle_a_dependency_s_refusal_itself(world: World) -> None:
    app = guarded(world)

    @app.exception_handler(AccessDenied)
    async def handle(request: Any, refusal: AccessDenied) -> JSONResponse:
        return JSONResponse({"why": refusal.decision.reason}, status_code=418)

    @app.get("/")
    async def endpoint(principal: Writer) -> None: ...

    answer = call(app, "/", world.token())
    assert (answer.status, answer.body) == (418, b'{"why":"scope_missing"}')


def test_a_test_may_put_another_principal_in_the_place_of_the_dependency() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(principal: Writer) -> str:
        return principal.key_id

    someone = World().issue("inference:write").key.id
    app.dependency_overrides[keyguard_principal] = lambda: Namesake(someone)

    assert TestClient(app).get("/").json() == someone


class Namesake:
    def __init__(self, key_id: str) -> None:
        self.key_id = key_id


def test_the_document_has_the_scheme_that_swagger_ui_authorizes_with(world: World) -> None:
    app = guarded(world)

    @app.get("/")
    async def endpoint(principal: Reader) -> None: ...

    assert app.openapi()["components"]["securitySchemes"] == {
        "KeyguardBearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, sent as `Authorization: Bearer <key>`.",
        }
    }
    assert operation(app, "/")["security"] == [{"KeyguardBearer": ["inference:read"]}]


@pytest.mark.skipif(
    "own_oauth_scopes" not in Dependant.__annotations__,
    reason="FastAPI before 0.123 writes those of OAuth 2 only",
)
def test_the_scopes_are_in_the_document_without_describe_as_well(world: World) -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(principal: Reader) -> None: ...

    assert operation(app, "/")["security"] == [{"KeyguardBearer": ["inference:read"]}]


def test_guarded_operations_tell_of_every_refusal_and_public_ones_of_none(world: World) -> None:
    app = guarded(world)

    class Body(BaseModel):
        text: str

    @app.post("/guarded")
    async def endpoint(body: Body) -> str: ...

    @app.get("/open")
    async def public() -> str: ...

    responses = operation(app, "/guarded", "post")["responses"]
    assert set(responses) == {"200", "400", "401", "403", "422", "429", "503"}
    for status in ("400", "401", "403", "429", "503"):
        assert responses[status]["content"] == {"application/problem+json": PROBLEM}
    assert set(responses["429"]["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    assert set(responses["401"]["headers"]) == {"WWW-Authenticate"}
    assert "KeyguardProblem" in app.openapi()["components"]["schemas"]
    assert scopes_of(app, "/guarded", "post") == [[]]
    assert set(operation(app, "/open")["responses"]) == {"200"}
    assert "security" not in operation(app, "/open")


def test_real_refusals_are_as_the_document_says(world: World) -> None:
    app = guarded(world)

    @app.get("/")
    async def endpoint(principal: Writer) -> None: ...

    responses = operation(app, "/")["responses"]
    schema = app.openapi()["components"]["schemas"]["KeyguardProblem"]
    requests = [
        Request("/"),
        Request("/", authorization=(b"Bearer a b",)),
        Request("/", authorization=(b"Bearer " + world.token().encode(),)),
    ]
    for request in requests:
        answer = call_asgi(app, request)
        told = responses[str(answer.status)]
        assert answer.header("content-type") in told["content"]
        assert all(answer.header(name.lower()) for name in told["headers"])
        assert set(schema["required"]) <= set(json.loads(answer.body)) <= set(schema["properties"])


def test_what_the_application_says_of_its_answers_stays(world: World) -> None:
    header = APIKeyHeader(name="x-other")
    app = guarded(world)

    @app.get("/", responses={403: {"description": "Not today", "model": str}})
    async def endpoint(other: Annotated[str, Depends(header)]) -> None: ...

    said = operation(app, "/")["responses"]["403"]
    assert said["description"] == "Not today"
    assert set(said["content"]) == {"application/json", "application/problem+json"}
    assert operation(app, "/")["security"] == [{"KeyguardBearer": []}, {"APIKeyHeader": []}]


def test_the_application_s_own_security_stays_on_public_and_guarded_operations(
    world: World,
) -> None:
    app = guarded(world)
    login, optional = HTTPBearer(description="A JWT"), KeyguardPrincipal(auto_error=False)

    @app.get("/open", dependencies=[Security(login), Security(optional)])
    async def public() -> None: ...

    @app.get("/guarded", dependencies=[Security(login)])
    async def endpoint() -> None: ...

    assert operation(app, "/open")["security"] == [{"HTTPBearer": []}]
    assert operation(app, "/guarded")["security"] == [{"KeyguardBearer": []}, {"HTTPBearer": []}]
    schemes = app.openapi()["components"]["securitySchemes"]
    assert schemes["HTTPBearer"]["description"] == "A JWT"
    assert schemes["KeyguardBearer"]["description"].startswith("An API key")


def test_an_answer_that_the_application_keeps_elsewhere_stays_a_reference(world: World) -> None:
    app = guarded(world)
    reference = {"$ref": "#/components/responses/Mine", "description": "Mine"}

    @app.get("/", responses={429: reference})
    async def endpoint() -> None: ...

    assert operation(app, "/")["responses"]["429"] == reference


def test_the_document_follows_the_rules_and_decorators(world: World) -> None:
    app = FastAPI()

    @app.get("/v1/models/{model_id:int}")
    async def model(model_id: int) -> None: ...

    @app.post("/v1/models/{model_id}")
    async def change(model_id: str) -> None: ...

    @app.get("/static/{path:path}")
    async def static(path: str) -> None: ...

    @app.get("/report")
    @require_scopes(any_of=["analytics:read", "admin"])
    async def report() -> None: ...

    @app.get("/hidden", include_in_schema=False)
    async def hidden() -> None: ...

    guarded(
        world,
        app,
        rules=[
            Rule("/v1/models/{model_id}", methods=["GET"], scopes=["inference:read"]),
            Rule("/static/{path:path}", public=True),
        ],
    )

    assert scopes_of(app, "/v1/models/{model_id}") == [["inference:read"]]
    assert scopes_of(app, "/v1/models/{model_id}", "post") == [[]]
    assert scopes_of(app, "/static/{path}") == []
    assert scopes_of(app, "/report") == [["admin"], ["analytics:read"]]
    assert "/hidden" not in app.openapi()["paths"]


def test_a_public_path_whose_endpoint_asks_for_a_key_is_documented_as_guarded(
    world: World,
) -> None:
    app = guarded(world)

    @app.get("/open")
    async def dependent(principal: Anyone) -> None: ...

    @app.get("/open/write")
    @require_scopes("inference:write")
    async def decorated() -> None: ...

    assert scopes_of(app, "/open") == [[]]
    assert scopes_of(app, "/open/write") == [["inference:write"]]


@pytest.mark.parametrize(("per", "status"), [("key", 401), ("organization", 401), ("address", 200)])
def test_a_public_path_is_documented_as_guarded_where_its_limit_counts_keys(
    world: World, per: Any, status: int
) -> None:
    app = guarded(world)

    @app.get("/open")
    @rate_limit("2/minute", per=per)
    async def limited() -> None: ...

    assert call(app, "/open").status == status
    assert bool(scopes_of(app, "/open")) is (status == 401)
    assert ("401" in operation(app, "/open")["responses"]) is (status == 401)


def test_a_dependency_that_is_overridden_is_not_documented_as_asking_for_a_key(
    world: World,
) -> None:
    app = guarded(world)

    @app.get("/open")
    async def dependent(principal: Anyone) -> None: ...

    app.dependency_overrides[keyguard_principal] = lambda: None

    assert call(app, "/open").status == 200
    assert scopes_of(app, "/open") == []


def test_the_document_is_made_once_and_anew_for_new_routes(world: World) -> None:
    app = guarded(world)
    first = app.openapi()

    assert app.openapi() is first
    app.openapi_schema = None  # as FastAPI's users make it forget

    @app.get("/later")
    async def later(principal: Reader) -> None: ...

    assert "401" in operation(app, "/later")["responses"]


def test_an_application_with_the_middleware_outside_names_it(world: World) -> None:
    app = FastAPI()

    @app.get("/status")
    async def endpoint(principal: Reader) -> None: ...

    @app.get("/")
    async def root() -> None: ...

    outside = asgi.KeyguardMiddleware(app, world.async_guard, public=["/sub/status", "/sub/"])
    describe(app, outside, mounted_at="/sub")

    assert scopes_of(app, "/status") == [["inference:read"]]
    assert "security" not in operation(app, "/")


def test_describe_says_where_there_is_no_middleware() -> None:
    app = FastAPI()
    describe(app)

    with pytest.raises(ConfigurationError, match="found no keyguard middleware"):
        app.openapi()


def test_the_pages_of_the_documentation_need_a_key_unless_they_are_public(world: World) -> None:
    app = guarded(world, public=["/docs", "/openapi.json"])
    client = TestClient(app)

    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json() == app.openapi()
    assert client.get("/redoc").status_code == 401


@pytest.mark.parametrize(
    ("root_path", "path", "rule"),
    [
        ("/api", "/admin", "/admin"),
        ("/api", "/api/admin", "/admin"),
        ("/api/", "/api/admin", "/api/admin"),  # which FastAPI takes off no path
    ],
)
def test_a_root_path_of_the_application_s_own_evades_no_rule(
    root_path: str, path: str, rule: str
) -> None:
    here = World(options={"rules": [Rule(rule, scopes=["admin"])]})
    app = FastAPI()
    app.root_path = root_path  # as its argument does, which newer ones warn of
    app.get(rule)(lambda: "secret")
    guarded = asgi.KeyguardMiddleware(app, here.async_guard)
    for scopes, status in (((), 403), (("admin",), 200)):
        request = Request(path, authorization=(b"Bearer " + here.token(*scopes).encode(),))
        assert call_asgi(guarded, request).status == status
