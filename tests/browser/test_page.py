"""The budgets page in a real Chromium: `make browser`. Not part of `make test`: CI may have none.

Without Chromium these fail; they are never skipped.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import pytest

from extproc.admin.server import administering
from extproc.admin.views import Reload
from extproc.exchange.outcome import Noted
from extproc.ledger.memory import MemoryLedger
from extproc.policy.budgets import DecidedBy
from extproc.policy.tenants import Tenant
from tests.browser.chromium import Page, browsing
from tests.browser.fed import Fed, budget, tenant

HOSTILE: Final = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=1">',
    "\u202egnol\u202c " + "W" * 240,
    "__proto__",
    "a\u0000b\nc",
)
LIVE: Final = "document.body.classList.contains('live')"
FIRST: Final = "document.querySelector('#tenants tbody').dataset.tenant"
COUNT: Final = "document.querySelectorAll('#tenants tbody').length"


def seen(fed: Fed, test: Callable[[Page, str], Coroutine[Any, Any, None]]) -> None:
    """Open the page and look; afterwards nothing may have been complained of or asked elsewhere."""

    async def run() -> None:
        async with administering(fed.views, "127.0.0.1", 0) as port, browsing() as page:
            url = f"http://127.0.0.1:{port}/budgets"
            await page.size(1366, 900)
            await page.open(url)
            await page.until(LIVE)
            await test(page, url)
            assert page.complaints == []
            assert {asked.partition("/budgets")[0] for asked in page.asked_for} == {
                url.partition("/budgets")[0]
            }

    asyncio.run(run())


def team(count: int = 30) -> dict[str, Tenant]:
    return {f"team-{n:02d}": tenant(budget("minute", 1000)) for n in range(count)}


def cell(name: str, column: int) -> str:
    """What a cell of a tenant's first budget says."""
    row = (
        f"[...document.querySelectorAll('#tenants tbody')].find(b => b.dataset.tenant === {name!r})"
    )
    return f"{row}.rows[0].cells[{column}].textContent"


def test_what_happens_is_shown_without_a_reload() -> None:
    fed = Fed(team())

    async def test(page: Page, _: str) -> None:
        await page.look("window.before = document.querySelector('#tenants tbody'); 1")
        await fed.call("team-00", {"minute": 800}, tokens=700)
        await page.until(f"{cell('team-00', 4)} === '700'")
        await fed.hold("team-00", {"minute": 250})
        await page.until(f"{cell('team-00', 2)} === 'near limit'")
        assert await page.look("window.before === document.querySelector('#tenants tbody')")
        assert await page.look(cell("team-00", 3)) == "95\u00a0%"
        await fed.hold("team-07", {"minute": 1000})
        await page.until(f"{FIRST} === 'team-07'")
        assert await page.look(cell("team-07", 2)) == "exhausted"
        assert await page.look("document.title") == "1 exhausted · Budgets"
        assert await page.look("document.querySelector('#models tbody th').textContent") == "gpt-4"

    seen(fed, test)


def test_what_is_reserved_is_told_from_what_is_committed() -> None:
    fed = Fed({"acme": tenant(budget("minute", 1000))})

    async def test(page: Page, _: str) -> None:
        await fed.call("acme", {"minute": 400}, tokens=400)
        await fed.hold("acme", {"minute": 200})
        await page.until(f"{cell('acme', 3)} === '60\u00a0%'")
        bars = "[...document.querySelectorAll('#tenants tbody .bar span')].map"
        assert await page.look(f"{bars}(s => s.style.width)") == ["40%", "20%"]
        pictures = await page.look(f"{bars}(s => getComputedStyle(s).backgroundImage)")
        assert pictures[0] == "none"
        assert "gradient" in pictures[1]
        label = await page.look("document.querySelector('#tenants .bar').ariaLabel")
        assert label == "60\u00a0% used, 20\u00a0% reserved"

    seen(fed, test)


def test_names_are_shown_as_text_whatever_they_are() -> None:
    fed = Fed({name: tenant(budget("minute", 1000)) for name in HOSTILE})

    async def test(page: Page, _: str) -> None:
        for name in HOSTILE:
            refused = Noted(outcome="refused", tenant=name, reason=name, tier=name)
            await fed.record(refused, status=429, cluster=name)
        await page.until(f"document.querySelectorAll('#news tbody tr').length === {len(HOSTILE)}")
        names = "[...document.querySelectorAll('#tenants tbody .name')].map(n => n.textContent)"
        assert sorted(await page.look(names)) == sorted(HOSTILE)
        assert await page.look("document.images.length") == 0
        assert await page.look("document.scripts.length") == 1
        assert await page.look("document.title") == "Budgets"
        await page.size(375, 800, is_phone=True)
        assert await page.look("document.documentElement.scrollWidth") == 375

    seen(fed, test)


def test_the_keyboard_is_enough() -> None:
    async def test(page: Page, _: str) -> None:
        await page.press("/")
        assert await page.look("document.activeElement.id") == "filter"
        await page.type("team-2")
        await page.until(f"{COUNT} === 10")
        assert await page.look("location.search") == "?tenant=team-2"
        await page.press("ArrowDown")
        await page.press("ArrowDown")
        focused = "document.activeElement.dataset.tenant"
        assert await page.look(focused) == "team-21"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.look(outline) == "solid"
        await page.press("k")
        assert await page.look(focused) == "team-20"
        await page.press("End")
        assert await page.look(focused) == "team-29"
        await page.press("Enter")
        await page.until(f"{COUNT} === 1")
        assert await page.look(focused) == "team-29"
        await page.press("Escape")
        await page.until(f"{COUNT} === 20")
        assert await page.look(focused) == "team-00"
        assert await page.look("[location.search, document.querySelector('#filter').value]") == [
            "",
            "",
        ]

    seen(Fed(team()), test)


def test_the_focus_and_the_place_stay_while_numbers_change() -> None:
    fed = Fed(team())

    async def test(page: Page, _: str) -> None:
        await page.size(1100, 300)
        for _step in range(7):
            await page.press("j")
        await page.look("scrollTo(0, 200); 1")
        place = await page.look("[document.activeElement.dataset.tenant, scrollY]")
        assert place == ["team-06", 200]
        await fed.hold("team-25", {"minute": 1000})
        await page.until("document.title.startsWith('1 exhausted')")
        assert await page.look("[document.activeElement.dataset.tenant, scrollY]") == place
        assert await page.look(FIRST) == "team-00"  # the order is held while somebody is there

    seen(fed, test)


def test_a_row_that_has_the_focus_does_not_vanish() -> None:
    fed = Fed(team())

    async def test(page: Page, _: str) -> None:
        for _step in range(20):
            await page.press("j")
        assert await page.look("document.activeElement.dataset.tenant") == "team-19"
        for n in range(20, 25):
            await fed.hold(f"team-{n}", {"minute": 900})
        await page.until("document.querySelector('[data-state=warn] b').textContent === '5'")
        assert await page.look("document.activeElement.dataset.tenant") == "team-19"
        assert await page.look("document.activeElement.classList.contains('gone')")

    seen(fed, test)


def test_states_can_be_chosen() -> None:
    fed = Fed(team() | {"off": tenant(budget("none", 0))})

    async def test(page: Page, _: str) -> None:
        await page.look("document.querySelector('[data-state=suspended]').click()")
        await page.until(f"{COUNT} === 1")
        assert await page.look(FIRST) == "off"
        await page.look("document.querySelector('[data-state=exhausted]').click()")
        await page.until(f"{COUNT} === 0")
        empty = await page.look("document.querySelector('#tenants .empty').textContent")
        assert empty == "No tenant is exhausted. Esc shows all of them."
        await page.press("Escape")
        await page.until(f"{COUNT} === 20")

    seen(fed, test)


@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1440, 1920])
def test_no_screen_scrolls_sideways(width: int) -> None:
    fed = Fed(
        {name: tenant(budget("minute", 1000)) for name in HOSTILE}
        | {"acme": tenant(*[budget(f"a-rather-long-budget-name-{n}", 10**12) for n in range(5)])}
    )

    async def test(page: Page, _: str) -> None:
        await fed.call("acme", {"a-rather-long-budget-name-0": 10**11}, tokens=2**31)
        await page.size(width, 900, is_phone=width < 700)
        await page.until("document.querySelector('#hops tbody tr')")
        assert await page.look("[document.documentElement.scrollWidth, innerWidth]") == [width] * 2

    seen(fed, test)


def test_dark_is_dark_and_both_can_be_read() -> None:
    fed = Fed({"acme": tenant(budget("minute", 1000)), "off": tenant(budget("none", 0))})
    contrast = """(() => {
        const parts = (c) => c.match(/[0-9.]+/g).slice(0, 3).map((v) => {
            const s = v / 255;
            return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
        });
        const light = (c) => { const [r, g, b] = parts(c); return 0.2126*r + 0.7152*g + 0.0722*b; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const isText = (node) => node.nodeType === 3 && node.data.trim();
        const texts = [...document.querySelectorAll('body *')].filter((n) =>
            n.checkVisibility() && [...n.childNodes].some(isText));
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const ratios = texts.map((n) => ratio(light(getComputedStyle(n).color), paper));
        return [paper, Math.min(...ratios)];
    })()"""

    async def test(page: Page, _: str) -> None:
        await fed.hold("acme", {"minute": 1000})
        await page.until("document.title.startsWith('1 exhausted')")
        for scheme, is_dark in (("light", False), ("dark", True)):
            await page.prefer(scheme)
            paper, least = await page.look(contrast)
            assert (paper < 0.1) is is_dark
            assert least >= 4.5

    seen(fed, test)


def test_a_screen_reader_is_told_of_tables_and_not_of_every_number() -> None:
    fed = Fed(team(3))

    async def test(page: Page, _: str) -> None:
        tables = await page.look("document.querySelectorAll('table').length")
        assert await page.look("document.querySelectorAll('table > caption').length") == tables
        assert await page.look("document.querySelectorAll('th:not([scope])').length") == 0
        assert (
            await page.look("document.querySelectorAll('[aria-live], [role=status]').length") == 1
        )
        await page.size(375, 800, is_phone=True)
        tree = await page.call("Accessibility.getFullAXTree")
        roles = {node["role"]["value"] for node in tree["nodes"]}
        assert {"table", "row", "rowheader", "cell"} <= roles
        said = "window.said = 0; new MutationObserver(() => window.said++)"
        await page.look(f"{said}.observe(document.querySelector('#said'), {{childList: true}})")
        await fed.hold("team-00", {"minute": 500})
        await page.until(f"{cell('team-00', 5)} === '500'")
        assert await page.look("window.said") == 0

    seen(fed, test)


def test_alarms_are_shown_while_there_is_reason() -> None:
    class Full(MemoryLedger):
        def health(self) -> str:
            return "disk full"

        @property
        def without_store(self) -> Mapping[DecidedBy, int]:
            return {"local_share": 1234, "allow": 0}

    fed = Fed(team(1))

    async def test(page: Page, _: str) -> None:
        alarms = "[...document.querySelectorAll('#alarms p')].map(p => p.textContent)"
        assert await page.look(alarms) == []
        fed.last_reload = Reload(fed.clock(), ("$.tiers: expected an object",))
        fed.not_ready = "draining"
        fed.ledger.__class__ = Full
        await page.until(f"{alarms}.length === 3")
        told = await page.look(f"{alarms}.join()")
        for part in (
            "draining",
            "disk full",
            "began: 1,234 by local_share",
            "$.tiers: expected an object",
        ):
            assert part in told
        fed.last_reload, fed.not_ready = Reload(fed.clock()), ""
        await page.until(f"{alarms}.length === 1")
        fed.needs_restart = ("$.listen.port", "$.meter")
        await page.until(f"{alarms}.length === 2")
        assert (await page.look(f"{alarms}[1]")).endswith("restart: $.listen.port, $.meter")

    seen(fed, test)


def test_where_there_is_nothing_the_page_says_what_to_do() -> None:
    async def test(page: Page, _: str) -> None:
        empty = "[...document.querySelectorAll('.empty:not([hidden])')].map(p => p.textContent)"
        told = await page.look(empty)
        assert [text.partition(".")[0] for text in told] == [
            "No tenants yet",
            "No request in the last five minutes",
            "Nothing was refused or downgraded since the service began",
        ]

    seen(Fed({}), test)


def test_old_numbers_are_called_old_until_the_service_is_back() -> None:
    fed = Fed(team(3))

    async def run() -> None:
        async with browsing() as page:
            async with administering(fed.views, "127.0.0.1", 0) as port:
                await page.open(f"http://127.0.0.1:{port}/budgets")
                await page.until(LIVE)
            await page.until("document.body.classList.contains('stale')")
            when = await page.look("document.querySelector('#when').textContent")
            assert when.startswith("stale since ")
            assert when.endswith("reach the service")
            assert await page.look("document.querySelector('#said').textContent") == when
            assert await page.look("document.title") == "stale · Budgets"
            assert await page.look(COUNT) == 3
            await fed.hold("team-01", {"minute": 1000})
            async with administering(fed.views, "127.0.0.1", port):
                await page.until(LIVE)
                assert await page.look(cell("team-01", 2)) == "exhausted"
                assert await page.look("document.title") == "1 exhausted · Budgets"
                assert (
                    await page.look("document.querySelector('#said').textContent") == "Live again."
                )

    asyncio.run(run())


def test_a_service_that_answers_nonsense_makes_the_numbers_old_too() -> None:
    fed = Fed(team(3))

    async def test(page: Page, _: str) -> None:
        await page.look("window.real = fetch; fetch = async () => new Response('<html>'); 1")
        await page.until("document.body.classList.contains('stale')")
        await page.look("fetch = async () => new Response('', {status: 503}); 1")
        await page.until("document.querySelector('#when').textContent.includes('says 503')")
        await page.look("fetch = window.real; 1")
        await page.until(LIVE)

    seen(fed, test)


def test_a_link_to_a_choice_leads_there_again() -> None:
    async def test(page: Page, url: str) -> None:
        await page.open(f"{url}?tenant=team-2&sort=name&state=nonsense")
        await page.until(f"{COUNT} === 10")
        shown = await page.look(
            "[document.querySelector('#filter').value, document.querySelector('#sort').value]"
        )
        assert shown == ["team-2", "name"]
        asked = [one for one in page.asked_for if "/budgets.json" in one][-1]
        assert json.dumps(asked).count("nonsense") == 0

    seen(Fed(team()), test)
