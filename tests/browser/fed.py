"""Views as the admin server gets them, over a real policy, a real ledger and real records."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from extproc.admin.views import Books, InForce, Reload, Views
from extproc.config.loader import Loaded, load_file
from extproc.exchange.holds import holds_text
from extproc.exchange.outcome import Noted, Outcome, Place, Timing, Trace
from extproc.exchange.settling import Summary, bill_of, kind_of, settlement_of
from extproc.ledger.memory import MemoryLedger
from extproc.llm.dialects import Dialect
from extproc.policy.budgets import Budget, Claim, Reserve, Reserved
from extproc.policy.tenants import Tenant
from extproc.server.rulebook import Rulebook
from extproc.telemetry.recent import Recent
from tests.ledger_books import Clock

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "policy.yaml"

CLUSTERS: Final = {"premium": "gpt4-adapter", "standard": "gpt35-adapter", "default": "local-llama"}


def loaded_with(tenants: Mapping[str, Tenant] | None = None) -> Loaded:
    """The example's settings, with other tenants if any are given."""
    loaded = load_file(EXAMPLE)
    if tenants is None:
        return loaded
    settings = msgspec.structs.replace(loaded.settings, tenants=dict(tenants))
    return loaded._replace(settings=settings)


def tenant(*budgets: Budget, plan: str = "premium") -> Tenant:
    """A tenant with these budgets."""
    return Tenant(plan=plan, budgets=budgets)


def budget(name: str, limit: float, unit: Any = "tokens", **other: Any) -> Budget:
    """One budget, of a minute unless something else is said."""
    window = None if unit == "concurrent_requests" else {"seconds": 60}
    wanted = {"window": window} | other
    return msgspec.convert(
        {"id": name, "limit": Decimal(str(limit)), "unit": unit} | wanted, Budget
    )


class Fed:
    """Everything that the admin server shows, and the means to let something happen."""

    def __init__(self, tenants: Mapping[str, Tenant] | None = None) -> None:
        self.clock = Clock()
        self.loaded = loaded_with(tenants)
        self.rulebook = Rulebook(self.loaded)
        self.ledger = MemoryLedger(self.clock, reservation_seconds=900)
        self.recent = Recent(self.clock)
        self.since = self.clock()
        self.last_reload: Reload | None = None
        self.needs_restart: tuple[str, ...] = ()
        self.not_ready = ""
        self._count = 0

    @property
    def views(self) -> Views:
        """What is handed to the server."""
        return Views(
            metrics=lambda accept: (b"# HELP up\nup 1\n", "text/plain; version=0.0.4"),  # noqa: ARG005
            is_ready=lambda: self.not_ready,
            settings=lambda: InForce(
                self.loaded.settings, self.since, self.last_reload, self.needs_restart
            ),
            budgets=lambda: Books(self.rulebook.rules.policy, self.ledger),
            recent=self.recent,
            clock=self.clock,
        )

    async def hold(self, tenant: str, amounts: Mapping[str, int]) -> Noted:
        """Reserve of each of a tenant's budgets; return what the filter would note."""
        self._count += 1
        budgets = {one.id: one for one in self.loaded.settings.tenants[tenant].budgets}
        claims = tuple(
            Claim(name, one.unit, 10**15, one.window, amounts[name], amounts[name])
            for name, one in budgets.items()
            if name in amounts
        )
        answer = await self.ledger.reserve(Reserve(f"r{self._count}", tenant, claims))
        assert isinstance(answer, Reserved), answer
        return Noted(
            outcome="routed",
            tenant=tenant,
            dialect=Dialect.OPENAI_CHAT,
            stream=True,
            tier="premium",
            model="gpt-4",
            reservation=f"r{self._count}",
            reserved=holds_text(claims, answer.window_starts),
        )

    async def call(  # noqa: PLR0913  # each of them is shown
        self,
        tenant: str,
        amounts: Mapping[str, int],
        *,
        tokens: int = 120,
        first_seconds: float = 0.3,
        seconds: float = 3.0,
        status: int = 200,
        **noted: Any,
    ) -> None:
        """Let a call happen from its reservation to its settlement."""
        held = await self.hold(tenant, amounts)
        usage = f'{{"prompt_tokens": {tokens // 2}, "completion_tokens": {tokens - tokens // 2}}}'
        full = msgspec.structs.replace(held, usage=usage, **noted)
        await self.record(
            full,
            seconds=seconds,
            first_seconds=first_seconds,
            status=status,
            cluster=CLUSTERS.get(full.tier, full.tier),
        )

    async def record(
        self,
        noted: Noted,
        *,
        seconds: float = 1.0,
        first_seconds: float | None = None,
        status: int = 200,
        cluster: str = "",
    ) -> None:
        """Let the record of a request come."""
        outcome = Outcome(
            stream_id="",
            started=self.clock() - seconds,
            method="POST",
            path="/",
            status=status,
            flags="-",
            details="",
            bytes_received=1,
            bytes_sent=1,
            noted=noted,
            place=Place("route", cluster, "10.0.0.1:80", "", 1) if cluster else Place(),
            timing=Timing(
                0,
                0,
                None if first_seconds is None else round(first_seconds * 1e6),
                round(seconds * 1e6),
                round(seconds * 1e6),
            ),
            trace=Trace(),
        )
        kind = kind_of(outcome)
        if kind != "call":
            self.recent.observe(Summary(outcome, kind, None, None))
            return
        bill = bill_of(self.rulebook.rules.policy, outcome)
        settlement = settlement_of(outcome, bill)
        assert settlement is not None
        (settled,) = await self.ledger.settle([settlement])
        self.recent.observe(Summary(outcome, kind, bill, settled))
