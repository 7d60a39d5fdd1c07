"""The settings of a service that decisions need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from keyguard.core.access.credentials import open_basic, parse_authorization
from keyguard.core.access.decisions import Allow, Reason
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import ScopeCatalogue, ScopeGrant, narrowed
from keyguard.core.keys.records import KeyRecord
from keyguard.core.limits.charges import NO_LIMITS, AppliedLimits
from keyguard.core.limits.limit import Limit
from keyguard.core.limits.plans import on_plan
from keyguard.core.tokens.foreign import ForeignFormat
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Policy:
    """The token format, the scope catalogue and the limits of one service.

    Args:
        tokens: The format of its tokens.
        catalogue: The scopes it knows, or None if it takes any scope.
        require_https: Whether to refuse a key that came over plain HTTP.
        revoke_exposed: Whether to revoke that key as well.
        default_limits: The limits of every key. A limit of the same name of its organization, or of
            the key, replaces one.
        plans: For each plan the rates that it gives to limits of the service, by their names.
        failure_limit: How many failed authentications an address may have, or None for any number.
        foreign: The formats of imported tokens, in the order in which they are tried.
        takes_bar: Whether a token may contain ``|``, which the b64token grammar does not allow.
        defaults: The default limits as each plan changes them. An organization with any other plan
            has ``default_limits``.
    """

    tokens: TokenFormat
    catalogue: ScopeCatalogue | None = None
    require_https: bool = False
    revoke_exposed: bool = False
    default_limits: tuple[Limit, ...] = ()
    plans: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    failure_limit: Limit | None = None
    foreign: tuple[ForeignFormat, ...] = ()
    takes_bar: bool = field(init=False)
    defaults: Mapping[str | None, tuple[Limit, ...]] = field(init=False)

    def __post_init__(self) -> None:
        takes_bar = any(form.separator == "|" for form in self.foreign)
        object.__setattr__(self, "takes_bar", takes_bar)
        defaults = {name: on_plan(self.default_limits, self.plans[name]) for name in self.plans}
        object.__setattr__(self, "defaults", defaults)

    def allow(self, record: KeyRecord) -> Allow:
        """Return the decision for a request with this key."""
        principal = self.principal(record)
        plan = record.organization.plan
        levels = (
            self.defaults.get(plan, self.default_limits),
            record.organization.limits,
            record.key.limits,
        )
        ends_at = record.key.ends_at if record.key.successor is not None else None
        return Allow(
            principal,
            AppliedLimits.of(principal, *levels) if any(levels) else NO_LIMITS,
            record.key.allowed_networks,
            None if ends_at is None else _http_date(ends_at),
            None if plan is None else self.plans.get(plan),
        )

    def check_plan(self, name: object) -> None:
        """Refuse the name of a plan that the settings do not know.

        Raises:
            InvalidValueError: The settings do not know the plan. The message names the plans that
                they know.
        """
        if name not in self.plans:
            known = f"the setting plans has: {', '.join(sorted(self.plans))}"
            raise InvalidValueError(
                f"there is no plan {shown(name)}; "
                f"{known if self.plans else 'the settings name no plans'}"
            )

    @property
    def checks_endpoints(self) -> bool:
        """Whether the settings may contradict what endpoints declare."""
        return self.catalogue is not None or bool(self.plans)

    def check_endpoint(self, scopes: Iterable[str], limits: Iterable[Limit]) -> None:
        """Refuse what an endpoint declares, where the settings contradict it.

        Args:
            scopes: The scopes that it needs.
            limits: Its own limits.

        Raises:
            InvalidValueError: The catalogue does not know a scope, or a plan gives a limit a rate
                that its strategy can't count.
        """
        if self.catalogue is not None:
            self.catalogue.check_required(scopes)
        if self.plans:
            self.check_plans(limits)

    def check_plans(self, limits: Iterable[Limit]) -> None:
        """Refuse limits to which a plan gives a rate that their strategy can't count.

        Raises:
            InvalidValueError: A plan gives a limit such a rate. The message names the plan.
        """
        known = tuple(limits)
        for name, rates in self.plans.items():
            try:
                on_plan(known, rates)
            except InvalidValueError as problem:
                raise InvalidValueError(f"plan {shown(name)}: {problem}") from None

    def principal(self, record: KeyRecord) -> Principal:
        """Return the principal of a request with this key."""
        key = record.key
        grant = self.grant(key.scopes)
        if record.organization.scopes is not None:
            ceiling = self.grant(record.organization.scopes)
            grant = self.grant(narrowed(grant, ceiling))
        return Principal(
            key_id=key.id,
            family=key.family,
            organization=key.organization,
            grant=grant,
            metadata=key.metadata,
        )

    def grant(self, scopes: frozenset[str]) -> ScopeGrant:
        """Return the grant of these scopes and of all scopes that they imply."""
        return self.catalogue.grant(scopes) if self.catalogue else ScopeGrant(scopes)

    def candidates(self, token: Secret) -> tuple[str, ...]:
        """Return the ids of the keys that a token may belong to; empty if it is malformed.

        A token of the service's own format belongs to one key; any other token may belong to one
        key for each format of imported tokens.
        """
        parts = self.tokens.parse(token.reveal())
        if parts is not None:
            return (parts.key_id,)
        if not self.foreign:
            return ()
        found = (form.lookup(token.reveal()) for form in self.foreign)
        return tuple(key_id for key_id in found if key_id is not None)

    def is_anothers(self, fields: Sequence[str | bytes]) -> bool:
        """Return whether credentials are missing, or belong to another login than keyguard's.

        Credentials that begin with the prefix are keyguard's, whatever their scheme. So are
        credentials that hold a token of keyguard anywhere, in ``Basic`` too, and malformed ones. An
        imported token looks like any other token, so with imported formats every bearer token is
        keyguard's.

        Args:
            fields: The ``Authorization`` field values, as received.
        """
        token = parse_authorization(fields, bar=self.takes_bar)
        if isinstance(token, Secret):
            return not (self.foreign or self.names_own(token.reveal()))
        if token is Reason.SCHEME_UNSUPPORTED:
            value = fields[0]
            return not self.names_own(
                value.decode("latin-1") if isinstance(value, bytes) else value
            )
        return token is Reason.CREDENTIALS_MISSING

    def names_own(self, value: str) -> bool:
        """Return whether an ``Authorization`` field holds a token, or begins with the prefix.

        Some clients write a token as a parameter (``Token token=...``), or into ``Basic``.
        """
        return (
            any(map(self._is_prefixed, value.split(None, 2)))
            or self.tokens.is_in(value)
            or self.tokens.is_in(open_basic(value))
        )

    def _is_prefixed(self, text: str) -> bool:
        return text.lower().startswith(f"{self.tokens.prefix}_")

    def may_name(self, token: Secret, key_id: str) -> bool:
        """Return whether an event may name an id under which no key was found.

        It may not if the id is a fast hash of the whole token: a client may have sent a password,
        and a reader of the log could try guesses.
        """
        return all(
            form.has_public_part or form.lookup(token.reveal()) != key_id for form in self.foreign
        )


def _http_date(at: datetime) -> str:
    from email.utils import format_datetime  # only a service that rotates keys pays for it

    return format_datetime(at.replace(microsecond=0), usegmt=True)
