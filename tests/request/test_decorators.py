"""require_scopes on everything that can be decorated, and nothing let through by accident."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.views import MethodView, View
from starlette.endpoints import HTTPEndpoint

from keyguard import (
    AccessDenied,
    Allow,
    ConfigurationError,
    InvalidValueError,
    Reason,
    ScopeCatalogue,
    current_principal,
    require_organization,
    require_scopes,
)
from keyguard.adapters.wsgi import WSGIExchange
from keyguard.core.access.policy import Policy
from keyguard.core.tokens.format import TokenFormat
from keyguard.request.context import enter_request, leave_request
from keyguard.request.protection import check_declared
from keyguard.request.state import RequestState
from tests.world import World


def knowing(catalogue: ScopeCatalogue) -> Policy:
    return Policy(tokens=TokenFormat("aiaas_live"), catalogue=catalogue)


@pytest.fixture
def let_in() -> Iterator[Callable[..., RequestState]]:
    """Put a principal with these scopes in place, as the middleware would."""
    world = World()
    tokens = []

    def place(*scopes: str) -> RequestState:
        decision = world.guard.authenticate([f"Bearer {world.token(*scopes)}"])
        assert isinstance(decision, Allow)
        access = request_to(world)
        access.allow = decision
        tokens.append(enter_request(access))
        return access

    yield place
    for token in reversed(tokens):
        leave_request(token)


def request_to(world: World) -> RequestState:
    """Return the state of a request that nothing was decided about yet."""
    server: Any = None
    return WSGIExchange(world.guard, {}, server, server)


@require_scopes("inference:write")
def plain(value: int, *, twice: bool = False) -> int:
    """Say it back."""
    return value * 2 if twice else value


@require_scopes("inference:write")
async def coroutine(value: int) -> int:
    return value


class Service:
    @require_scopes("inference:write")
    def method(self, value: int) -> int:
        return value

    @require_scopes("inference:write")
    async def async_method(self, value: int) -> int:
        return value

    @staticmethod
    @require_scopes("inference:write")
    def static(value: int) -> int:
        return value

    @require_scopes("inference:write")
    @staticmethod
    def static_below(value: int) -> int:
        return value

    @require_scopes("inference:write")
    @classmethod
    def of_class(cls, value: int) -> int:
        return value


class CallableObject:
    async def __call__(self, value: int) -> int:
        return value


CALLS: dict[str, Callable[[int], Any]] = {
    "function": plain,
    "coroutine function": coroutine,
    "method": Service().method,
    "async method": Service().async_method,
    "static method": Service.static,
    "static method below": Service.static_below,
    "class method": Service.of_class,
    "async callable object": require_scopes("inference:write")(CallableObject()),
    "partial": require_scopes("inference:write")(functools.partial(lambda a, b: b, 0)),
    "lambda": require_scopes("inference:write")(lambda value: value),
}


def finish(result: Any) -> Any:
    return asyncio.run(_await(result)) if inspect.isawaitable(result) else result


async def _await(result: Any) -> Any:
    return await result


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_with_the_scope_goes_through(call: Any, let_in: Any) -> None:
    let_in("inference:write")

    assert finish(call(7)) == 7


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_without_the_scope_is_refused(call: Any, let_in: Any) -> None:
    access = let_in("inference:read")

    with pytest.raises(AccessDenied) as refused:
        finish(call(7))
    assert refused.value.decision.reason is Reason.SCOPE_MISSING
    assert refused.value.decision.scopes == ("inference:write",)
    assert access.refusal == refused.value.decision


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_without_the_middleware_is_never_let_through(call: Any) -> None:
    with pytest.raises(ConfigurationError, match="runs outside keyguard's middleware"):
        finish(call(7))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_on_a_public_path_lacks_credentials(call: Any) -> None:
    token = enter_request(request_to(World()))
    try:
        with pytest.raises(AccessDenied) as refused:
            finish(call(7))
    finally:
        leave_request(token)
    assert refused.value.decision.reason is Reason.CREDENTIALS_MISSING


def test_all_scopes_are_needed_and_one_of_any_of(let_in: Any) -> None:
    @require_scopes("inference:read", "inference:write", any_of=["admin", "analytics:read"])
    def guarded() -> bool:
        return True

    let_in("inference:read", "inference:write", "analytics:read")
    assert guarded()
    for scopes in (["inference:read", "inference:write"], ["inference:read", "admin"]):
        let_in(*scopes)
        with pytest.raises(AccessDenied):
            guarded()


def test_decorators_stack(let_in: Any) -> None:
    @require_scopes("inference:read")
    @require_scopes("inference:write")
    def guarded() -> bool:
        return True

    let_in("inference:write")
    with pytest.raises(AccessDenied):
        guarded()
    let_in("inference:read")
    with pytest.raises(AccessDenied):
        guarded()
    let_in("inference:read", "inference:write")
    assert guarded()


def wrapping(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_the_order_among_other_decorators_does_not_matter(let_in: Any) -> None:
    above = require_scopes("inference:write")(wrapping(lambda: True))
    below = wrapping(require_scopes("inference:write")(lambda: True))

    for guarded in (above, below):
        with pytest.raises(InvalidValueError):
            check_declared(guarded, knowing(ScopeCatalogue({"other": ""})))
        let_in("inference:write")
        assert guarded()
        let_in()
        with pytest.raises(AccessDenied):
            guarded()


def test_a_decorated_function_keeps_its_name_and_signature() -> None:
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Say it back."
    assert list(inspect.signature(plain).parameters) == ["value", "twice"]
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(plain)


def test_a_generator_is_guarded_when_it_is_called(let_in: Any) -> None:
    @require_scopes("inference:write")
    def numbers() -> Iterator[int]:
        yield 1

    let_in()
    with pytest.raises(AccessDenied):
        numbers()
    let_in("inference:write")
    assert list(numbers()) == [1]


@pytest.mark.parametrize(
    ("scopes", "any_of", "said"),
    [
        ((), None, "at least one scope"),
        ((), [], "any_of is empty"),
        (("inference:read",), [], "any_of is empty"),
        (("inference write",), None, "is not a valid scope"),
        (("inference:*",), None, "holds a wildcard"),
        ((), "admin", "scopes are a list"),
        ((7,), None, "is not a valid scope"),
        ((), 7, "scopes are a list"),
    ],
)
def test_a_mistake_is_refused_at_decoration(scopes: Any, any_of: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        require_scopes(*scopes, any_of=any_of)


def test_forgetting_the_scopes_altogether_is_refused_at_decoration() -> None:
    with pytest.raises(InvalidValueError):

        @require_scopes  # type: ignore[arg-type]  # the mistake
        def guarded() -> None: ...


def test_what_can_t_be_called_or_dispatched_is_refused_at_decoration() -> None:
    with pytest.raises(ConfigurationError, match="decorates callables"):
        require_scopes("a")(7)  # type: ignore[type-var]  # the mistake
    with pytest.raises(ConfigurationError, match="Decorate its methods instead"):

        @require_scopes("a")
        class Nothing:
            pass


def test_a_scope_that_the_catalogue_does_not_know_is_found_wherever_it_was_declared() -> None:
    @require_scopes("unknown")
    class Endpoint(HTTPEndpoint):
        pass

    class Methods(HTTPEndpoint):
        @require_scopes("unknown")
        async def get(self, request: Any) -> None: ...

    class FlaskMethods(MethodView):
        @require_scopes("unknown")
        def post(self) -> str:
            return ""

    @require_scopes("unknown")
    class FlaskClass(View):
        def dispatch_request(self) -> str:
            return ""

    declared = [
        require_scopes(any_of=["unknown"])(lambda: None),
        Endpoint,
        Methods,
        FlaskMethods.as_view("methods"),
        FlaskClass.as_view("class"),
    ]
    for endpoint in declared:
        with pytest.raises(InvalidValueError, match="unknown scope 'unknown'"):
            check_declared(endpoint, knowing(ScopeCatalogue({"known": ""})))
        check_declared(endpoint, knowing(ScopeCatalogue({"unknown": ""})))


def test_the_principal_is_that_of_the_request(let_in: Any) -> None:
    access = let_in("admin")

    assert current_principal() is access.allow.principal


def test_there_is_no_principal_without_the_middleware() -> None:
    with pytest.raises(ConfigurationError):
        current_principal()
    with pytest.raises(ConfigurationError):
        require_organization("org_x")


def test_an_object_is_only_its_organization_s(let_in: Any) -> None:
    organization = let_in().allow.principal.organization

    require_organization(organization)
    for other in (None, "", "org_0000000000000000"):
        with pytest.raises(AccessDenied) as refused:
            require_organization(other)
        assert refused.value.decision.reason is Reason.OBJECT_NOT_FOUND


def test_a_subclass_that_dispatches_anew_is_guarded_too(let_in: Any) -> None:
    hooked: list[str] = []

    @require_scopes("admin")
    class Base(View):
        def __init_subclass__(cls, **options: Any) -> None:
            hooked.append(cls.__name__)
            super().__init_subclass__(**options)

        def dispatch_request(self) -> str:
            return "base"

    class Overriding(Base):
        def dispatch_request(self) -> str:
            return "overridden"

    class Deeper(Overriding):
        def dispatch_request(self) -> str:
            return "deeper " + super().dispatch_request()

    assert hooked == ["Overriding", "Deeper"]
    for view in (Base, Overriding, Deeper):
        let_in()
        with pytest.raises(AccessDenied):
            view().dispatch_request()
    let_in("admin")
    assert Deeper().dispatch_request() == "deeper overridden"


def test_a_class_with_both_dispatchers_is_guarded_at_both(let_in: Any) -> None:
    @require_scopes("admin")
    class Endpoint(HTTPEndpoint):
        async def dispatch(self) -> None: ...

        def dispatch_request(self) -> str:
            return "only a helper"

    let_in()
    endpoint = Endpoint.__new__(Endpoint)
    with pytest.raises(AccessDenied):
        endpoint.dispatch_request()
    with pytest.raises(AccessDenied):
        finish(endpoint.dispatch())


def test_a_base_that_stands_before_a_guarded_one_opens_no_way_around_it(let_in: Any) -> None:
    @require_scopes("admin")
    class Base(View):
        def dispatch_request(self) -> str:
            return "base"

    class Report(View):
        def dispatch_request(self) -> str:
            return "report"

    class AdminReport(Report, Base):
        pass

    let_in()
    with pytest.raises(AccessDenied):
        AdminReport().dispatch_request()
    assert Report().dispatch_request() == "report"
    let_in("admin")
    assert AdminReport().dispatch_request() == "report"


def test_a_mixin_of_an_endpoint_opens_no_way_around_it(let_in: Any) -> None:
    @require_scopes("admin")
    class Base(HTTPEndpoint):
        pass

    class Timed(HTTPEndpoint):
        async def dispatch(self) -> None: ...

    class Both(Timed, Base):
        pass

    let_in()
    with pytest.raises(AccessDenied):
        finish(Both.__new__(Both).dispatch())
