"""The mesh at work: shares, mirrors, an outage with its circuit and fallback, and recovery."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp

from extproc.demo.attachment import ROUTER_HOST
from extproc.demo.backstage import holds_soon
from extproc.demo.board import Verdict
from extproc.demo.shares import binomial

MESH_VERDICTS: Final = 4
CALLS: Final = 200
AT_ONCE: Final = 10
EJECTION_SECONDS: Final = 3
"""So long a model stays out of circuit here, so that one can watch; 120 s as it is shipped."""

_CHAT: Final = "/v1/chat/completions"
_TENANT: Final = "acme"
_ERRORS_IN_A_ROW: Final = 3
_CALLS_IN_THE_OUTAGE: Final = 5
_OUTAGE: Final = {"x-adapter-only": "gpt4-adapter", "x-adapter-status": "503"}


def watchable(document: dict[str, Any]) -> None:
    """Shorten, in GPT-4's DestinationRule, how long it stays out of circuit."""
    if (document["kind"], document["metadata"]["name"]) == ("DestinationRule", "gpt4-adapter"):
        outliers = document["spec"]["trafficPolicy"]["outlierDetection"]
        outliers |= {"interval": "0.5s", "baseEjectionTime": f"{EJECTION_SECONDS}s"}


class Served(NamedTuple):
    """What came of one call."""

    status: int
    by: str
    model: str
    fallback_from: str


class MeshPlay:
    """Calls whose way is looked at. `control` is the adapters' port."""

    def __init__(self, http: aiohttp.ClientSession, gateway: str, control: str, key: str) -> None:
        self._http = http
        self._url = gateway + _CHAT
        self._control = control
        self._key = key

    async def verdicts(self) -> list[Verdict]:
        """Play all of it, in order."""
        return [*await self._router(), await self._outage(), await self._recovery()]

    async def _router(self) -> list[Verdict]:
        mark = "router"
        served = await self._many(CALLS, {"host": ROUTER_HOST, "x-demo-step": mark})
        by = Counter(each.by for each in served)
        canary, shadow = binomial(CALLS, 0.10), binomial(CALLS, 0.10)
        problems = [f"status {each.status}" for each in served if each.status != 200]  # noqa: PLR2004  # RFC 9110
        if by["router-canary"] not in canary:
            problems.append(f"the canary had {by['router-canary']}, not {canary}")
        shares = Verdict(
            "a tenth of the router's calls goes to its canary",
            _TENANT,
            f"stable {by['router-stable']}, canary {by['router-canary']} of {CALLS}; 90/10 is set",
            tuple(problems),
        )

        async def is_mirrored() -> bool:
            return await self._mirrored(mark) in shadow

        await holds_soon(is_mirrored, seconds=5)
        copies = await self._mirrored(mark)
        found = () if copies in shadow else (f"the shadow had {copies}, not {shadow}",)
        seen = f"shadow {copies} of {CALLS} copies, no answer of it seen; 10 % is set"
        title = "another tenth is mirrored, and charged to nobody"
        return [shares, Verdict(title, _TENANT, seen, found)]

    async def _outage(self) -> Verdict:
        """GPT-4 gives 503: calls fall back, and after three it is not asked any more."""
        failing = [await self._call(_OUTAGE) for _ in range(_ERRORS_IN_A_ROW)]
        mark = "circuit"
        open_calls = [await self._call({"x-demo-step": mark}) for _ in range(_CALLS_IN_THE_OUTAGE)]
        asked = [entry["adapter"] for entry in await self._books(mark)]
        problems = [
            f"served by {each.by or each.status} as {each.model}"
            for each in (*failing, *open_calls)
            if (each.by, each.model, each.fallback_from)
            != ("gpt35-adapter", "gpt-3.5-turbo", "gpt-4")
        ]
        if "gpt4-adapter" in asked:
            problems.append("GPT-4 was asked while its circuit was open")
        seen = (
            f"{len(failing)} calls fell back to gpt-3.5-turbo; then its circuit opened, and "
            f"{len(open_calls)} went there at once; 3 errors in a row are set"
        )
        return Verdict("GPT-4 fails, and nobody notices", _TENANT, seen, tuple(problems))

    async def _recovery(self) -> Verdict:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def is_back() -> bool:
            return (await self._call({})).by == "gpt4-adapter"

        is_well = await holds_soon(is_back)
        seen = (
            f"GPT-4 serves again, {loop.time() - began:.1f} s later; "
            f"{EJECTION_SECONDS} s are set here, 120 s as it is shipped"
        )
        found = () if is_well else ("GPT-4 did not come back",)
        return Verdict("GPT-4 is well again, and so is its tier", _TENANT, seen, found)

    async def _many(self, count: int, headers: Mapping[str, str]) -> list[Served]:
        served: list[Served] = []
        left = iter(range(count))

        async def lane() -> None:
            served.extend([await self._call(headers) for _ in left])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(lane())
        return served

    async def _call(self, headers: Mapping[str, str]) -> Served:
        message = {"role": "user", "content": "Say hello to the mesh."}
        body = {"model": "gpt-4", "messages": [message], "max_tokens": 5}
        known = {"authorization": f"Bearer {self._key}", **headers}
        async with self._http.post(self._url, json=body, headers=known) as response:
            answer = json.loads(await response.read())
            return Served(
                response.status,
                response.headers.get("x-served-by", ""),
                str(answer.get("model", "")),
                response.headers.get("x-llm-fallback-from", ""),
            )

    async def _mirrored(self, mark: str) -> int:
        return sum(entry["adapter"] == "router-shadow" for entry in await self._books(mark))

    async def _books(self, mark: str) -> list[dict[str, Any]]:
        async with self._http.get(f"{self._control}/books?step={mark}") as response:
            found: list[dict[str, Any]] = await response.json()
            return found
