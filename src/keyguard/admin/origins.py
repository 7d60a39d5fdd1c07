"""Where a call comes from: the page of a browser that sent it, and the name of the host it is to.

A call that a cookie vouches for must come from a page of the same origin, as the browser says
itself, so that no other site changes anything with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyguard.admin.exchange import Call, Problem
from keyguard.exceptions import ConfigurationError, shown

_HOST = re.compile(r"[0-9a-z._-]+\Z|\[[0-9a-f:.]+\]\Z")
_PORT = re.compile(r":[0-9]*\Z")
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))


def check_origin(call: Call) -> None:
    """Refuse a call that may change something and does not come from a page of the same origin.

    Raises:
        Problem: The call comes from another origin, or the browser does not name its origin.
    """
    if call.is_safe:
        return
    headers, host = call.request.headers, call.request.host
    site = headers.get("Sec-Fetch-Site")
    if site is None:
        origin = f"{call.request.scheme}://{host}"
        trusted = bool(host) and headers.get("Origin") == origin
    else:
        trusted = site == "same-origin"
    if not trusted:
        raise Problem(
            403, "This was sent from another site, or by a browser that does not say from where."
        )


def host_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of hosts that are allowed.

    Raises:
        ConfigurationError: They are a single text, or one of them is no name without a port.
    """
    if isinstance(names, str):
        raise ConfigurationError("allowed_hosts takes several names, as a list")
    found = frozenset(str(name).lower() for name in names)
    for name in found:
        if not _HOST.match(name):
            raise ConfigurationError(
                f"allowed_hosts takes names without scheme and port, such as keys.example.com, "
                f"not {shown(name)}"
            )
    return found


def check_host(call: Call, allowed: frozenset[str] | None) -> None:
    """Refuse a call to a name of the host that is not allowed (DNS rebinding).

    Args:
        call: The call.
        allowed: The names in lower case, without ports; None for any.

    Raises:
        Problem: The name is not allowed. The status is that of RFC 9110, section 15.5.20.
    """
    host = call.request.headers.get("Host", "")
    name = _PORT.sub("", host).lower()
    if allowed is None or name in allowed:
        return
    told = "See its allowed_hosts."
    if "localhost" in allowed <= _LOOPBACK:  # as `keyguard console` has it, which takes no names
        port = _PORT.search(host)
        mount = call.request.root_path
        told = f"Open {call.request.scheme}://localhost{port[0] if port else ''}{mount}/"
    raise Problem(421, f"The console does not answer to this name. {told}")
