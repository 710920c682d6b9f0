"""The whole file. Each section's meaning stands in the room that owns it."""

from typing import Annotated, Literal

import msgspec

from extproc.policy.complexity import Complexity
from extproc.policy.identity import IdentitySource
from extproc.policy.models import Model
from extproc.policy.section import Section
from extproc.policy.tenants import Tenant, WhenUnavailable
from extproc.policy.tiers import Rule, Tier, TierName

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Listen(Section, frozen=True, kw_only=True):
    """Where the gRPC server listens. Port 0 takes a free one and says which."""

    address: str = "0.0.0.0"  # noqa: S104  # a service in a Pod is called from outside of it
    port: Port = 50051
    connection_age_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] | None = None


class Admin(Section, frozen=True, kw_only=True):
    """Where metrics and the state are shown. Port 0 takes a free one and says which."""

    address: str = "127.0.0.1"
    port: Port = 9090


class LedgerSettings(Section, frozen=True, kw_only=True):
    """Where budgets are kept."""

    kind: Literal["memory", "sqlite", "valkey"] = "sqlite"
    reservation_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 900
    """How long a reservation waits for its settlement before it is charged what it expected."""
    path: str = "/var/lib/llm-extproc/ledger.db"
    url: str | None = None
    password_file: str | None = None
    replicas: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    cluster: bool = False
    when_unavailable: WhenUnavailable | None = None


class Telemetry(Section, frozen=True, kw_only=True):
    """Who is told of finished requests, beside the metrics."""

    audit: str = "stdout"
    spans: str | None = None


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what we take in."""

    request_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 8_388_608
    prompt_exact_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 26)] = 262_144
    tenants: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000


class BudgetApi(Section, frozen=True, kw_only=True):
    """Where budgets are looked after over gRPC, and by whom. Port 0 takes a free one."""

    address: str = "127.0.0.1"
    port: Port = 50052
    loopback: bool = True
    token_file: str | None = None
    identities: tuple[str, ...] = ()
    certificate_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None


class Settings(Section, frozen=True, kw_only=True):
    """The file, whole."""

    version: Literal[1]
    listen: Listen = Listen()
    admin: Admin = Admin()
    identity: tuple[IdentitySource, ...]
    unknown_tenant: Name = "reject"
    unknown_model: Name = "count_only"
    models: dict[Name, Model]
    tiers: dict[TierName, Tier]
    plans: dict[Name, tuple[Rule, ...]]
    tenants: dict[Name, Tenant]
    complexity: Complexity = Complexity()
    ledger: LedgerSettings = LedgerSettings()
    rewrite_model: bool = False
    meter: Literal["lua", "observe"] = "lua"
    telemetry: Telemetry = Telemetry()
    limits: Limits = Limits()
    budget_api: BudgetApi | None = None
