"""Make docs/budgets-page.png anew: `python -m tests.browser.picture`, in a real Chromium."""

import asyncio
import random
from pathlib import Path
from typing import Any, Final

from extproc.admin.server import administering
from extproc.exchange.outcome import Noted
from extproc.policy.tenants import Tenant
from tests.browser.chromium import browsing
from tests.browser.fed import Fed, budget, tenant

PICTURE: Final = Path(__file__).parents[2] / "docs" / "budgets-page.png"
MONTH: Final = {"calendar": "month", "timezone": "Asia/Shanghai"}
DAY: Final = {"calendar": "day"}


def tenants() -> dict[str, Tenant]:
    """A few of every kind."""
    return {
        "acme": tenant(
            budget("minute", 60_000),
            budget("month", 500, "usd", window=MONTH, on_exhausted="downgrade"),
            budget("calls", 20, "concurrent_requests"),
        ),
        "initech": tenant(
            budget("day", 1_000_000, window=DAY, models=["gpt-*"]),
            budget("burst", 300, "requests"),
            plan="standard",
        ),
        "globex/research": tenant(budget("minute", 40_000), budget("day", 25, "usd", window=DAY)),
        "hooli": tenant(budget("minute", 90_000), budget("month", 12_000, "usd", window=MONTH)),
        "umbrella": tenant(budget("off", 0)),
        "sandbox": tenant(budget("minute", 9000), plan="standard"),
        "platform": tenant(),
    } | {f"team-{n:03d}": tenant(budget("minute", 20_000), plan="standard") for n in range(5)}


async def happen(fed: Fed, chance: random.Random) -> None:
    """Let five minutes pass in which something happened."""
    for step in range(60):
        fed.clock.now += 5
        pace: dict[str, Any] = {
            "seconds": chance.uniform(2, 6),
            "first_seconds": chance.lognormvariate(-1, 0.4),
        }
        await fed.call("acme", {"minute": 2500, "month": 600_000}, tokens=2100, **pace)
        await fed.call("globex/research", {"minute": 900, "day": 60_000}, tokens=6800, **pace)
        await fed.call("hooli", {"minute": 3000}, tokens=4000, status=200 if step % 9 else 503)
        standard: dict[str, Any] = {"tier": "standard", "model": "gpt-3.5-turbo"}
        if step % 7 == 0:
            standard |= {"downgraded_from": "premium", "reason": "Budget 'month' is exhausted."}
        await fed.call("initech", {"day": 3000, "burst": 1}, tokens=3000, **pace, **standard)
        local: dict[str, Any] = {"tier": "default", "model": "local-llama"}
        await fed.call(f"team-{step % 5:03d}", {"minute": 900}, tokens=800, **pace, **local)
        retrieval = "outbound|8080|v1|retrieval.rag.svc.cluster.local"
        await fed.record(Noted(), seconds=chance.lognormvariate(1.2, 0.5), cluster=retrieval)
        embedder = "outbound|9000||embedder.rag.svc.cluster.local"
        await fed.record(Noted(), seconds=chance.lognormvariate(-3, 0.3), cluster=embedder)
        if step % 6 == 0:
            refused = Noted(outcome="refused", tenant="sandbox", reason="rate_limited")
            await fed.record(refused, status=429)
    fed.clock.now += 12
    await fed.call("sandbox", {"minute": 9000}, tokens=9000)
    await fed.call("initech", {"day": 9000, "burst": 1}, tokens=700_000, tier="standard")
    await fed.hold("acme", {"minute": 14_000, "month": 3_000_000})
    for _ in range(17):
        await fed.hold("acme", {"calls": 1})
    await fed.hold("globex/research", {"minute": 27_000, "day": 2_700_000})


async def main() -> None:
    """Let it happen and take the picture."""
    fed = Fed(tenants())
    await happen(fed, random.Random(7))  # noqa: S311  # the same picture each time
    async with administering(fed.views, "127.0.0.1", 0) as port, browsing() as page:
        await page.size(1440, 846)
        await page.open(f"http://127.0.0.1:{port}/budgets")
        await page.until("document.body.classList.contains('live')")
        await page.picture(PICTURE)


if __name__ == "__main__":
    asyncio.run(main())
