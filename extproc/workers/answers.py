"""What the admin server of a supervisor says: of all workers together, or of one that knows all."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from extproc.admin.answers import Json, json_of
from extproc.workers.crew import Crew

_OK: Final = 200
_NOBODY: Final[Json] = (503, b'{"error":"no worker answers"}')


class JointAnswers:
    """Of all workers. The ledger and the settings are the same for all: any of them knows."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def overview(self, parameters: Mapping[str, str]) -> Json:
        """What one sees in the ledger, and what all have seen in the last minutes."""
        members = self._crew.serving()
        await self._crew.refresh("figures")
        asked = await asyncio.gather(*(member.ask("recent") for member in members))
        for teller in members:
            others = [
                answer.body
                for member, answer in zip(members, asked, strict=True)
                if answer is not None and member is not teller
            ]
            told = await teller.ask("overview", parameters, others)
            if told is not None:
                return told.status, self._of_all(told.body) if told.status == _OK else told.body
        return _NOBODY

    async def settings(self, tenant: str) -> Json:
        """Those of the first that answers."""
        for member in self._crew.serving():
            told = await member.ask("settings", {"tenant": tenant})
            if told is not None:
                return told.status, told.body
        return _NOBODY

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Sums of all that there are and were."""
        await self._crew.refresh("figures")
        return self._crew.together.expose(accept)

    async def why_not_ready(self) -> str:
        """As of a moment ago."""
        return self._crew.why_not_ready()

    def _of_all(self, body: bytes) -> bytes:
        shown: dict[str, Any] = msgspec.json.decode(body)
        shown["not_ready"] = self._crew.why_not_ready()
        shown["ledger"]["reservations_held"] = self._crew.together.reservations
        shown["ledger"]["reservations_expired"] = self._crew.together.ended.expired
        return json_of(shown)
