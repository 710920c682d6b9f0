"""extproc/looking_after.py: the port that the settings ask for, and none where they don't."""

import asyncio
from pathlib import Path

import pytest

from extproc.config.settings import BudgetApi
from extproc.looking_after import looking_after
from tests.shell.budget_harness import World
from tests.shell.test_budget_cli import ran


def test_it_is_served_as_the_settings_say() -> None:
    said: list[str] = []

    async def run() -> None:
        world = World()
        async with (
            asyncio.timeout(60),
            looking_after(BudgetApi(port=0), world.service, said.append),
        ):
            address = said[0].removeprefix("budgets on ")
            assert (await ran("get", "tiny", "day", f"--server={address}")).code == 0

    asyncio.run(run())


def test_without_the_section_nothing_is_served() -> None:
    said: list[str] = []

    async def run() -> None:
        async with looking_after(None, World().service, said.append):
            pass

    asyncio.run(run())
    assert not said


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        lost = str(tmp_path / "none.pem")
        wanted = BudgetApi(port=0, certificate_file=lost, key_file=lost)
        async with looking_after(wanted, World().service, print):
            pass

    with pytest.raises(OSError, match=r"none\.pem"):
        asyncio.run(run())
