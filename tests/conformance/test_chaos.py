"""`make chaos`, shortened: the service dies under load, and the books are right all the same."""

import random
from pathlib import Path

from chaos.disruptions import drawn
from chaos.ordeal import Plan, Scene, undergo
from chaos.stand import Service, models, proxy, settings_in
from chaos.traffic import STEADY, calls

RESERVATION_SECONDS = 3


async def test_nothing_is_lost_or_charged_twice_while_the_service_dies(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 24)
    dice = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
    order = drawn(dice, {"killed": 2, "stopped": 1, "terminated": 1})
    plan = Plan(300, 5000, 16, order, seed, held_seconds=20.0)
    settings = settings_in(tmp_path / "service", reservation_seconds=RESERVATION_SECONDS)
    with models(tmp_path / "models") as mocks:
        async with Service(settings).running() as service:
            with proxy(tmp_path / "envoy", service.port, mocks) as envoy:
                drawn_calls = calls(seed, tenants=STEADY)
                scene = Scene(service, envoy, mocks, lambda _: None)
                report = await undergo(plan, drawn_calls, scene)

    findings = report.findings
    assert findings.differences == (), f"seed {seed}"
    assert (findings.lost, findings.charged_twice) == (0, 0), f"seed {seed}"
    assert (report.dropped, report.held) == (0, 0), f"seed {seed}"
    assert service.lives == 4
