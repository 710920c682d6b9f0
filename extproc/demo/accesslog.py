"""Envoy's access log, read while it is written: what really happened, in Envoy's words."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from extproc.exchange.outcome import Place

_POLL_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 0.1
"""Longer than Envoy takes to flush: what has not come by then was not sent before."""


class Record(NamedTuple):
    """One request that Envoy answered. `llm` is what the filter said about it, if anything."""

    step: str
    path: str
    protocol: str
    code: int
    details: str
    cluster: str
    """The service that answered, or would have."""
    route: str
    started: float
    duration_ms: int
    bytes_received: int
    retry_after: int | None
    llm: Mapping[str, Any]

    @property
    def was_forwarded(self) -> bool:
        """Whether an upstream answered: Envoy names the cluster of a refused request too."""
        return self.details == "via_upstream"


class AccessLog:
    """The log of one Envoy, from its beginning."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """Return what was written since the last call; all of it is kept in `records`."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = [_record(json.loads(line)) for line in whole.splitlines() if line]
        self.records.extend(found)
        return found

    def of(self, step: str) -> list[Record]:
        """Return the records of one step, in the order in which they began."""
        self.read()
        found = (record for record in self.records if record.step == step)
        return sorted(found, key=lambda record: record.started)

    async def wait_for(self, step: str, *, count: int, seconds: float = 5.0) -> list[Record]:
        """Return the records of `step` once there are `count`; all that there are by then.

        The count is what the caller expects; fewer are returned after `seconds`, and more if
        there were more.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # A file tells nobody that it grew.
        while len(self.of(step)) < count and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.sleep(_QUIET_SECONDS)
        return self.of(step)


def _upstream(line: Mapping[str, Any]) -> str:
    return Place(cluster=line["cluster"] or "", workload=line["workload"] or "").upstream


def _record(line: Mapping[str, Any]) -> Record:
    retry_after = line["retry_after"]
    return Record(
        step=line["step"] or "",
        path=line["path"] or "",
        protocol=line["protocol"] or "",
        code=line["code"],
        details=line["details"] or "",
        cluster=_upstream(line),
        route=line["route"] or "",
        started=float(line["start"]),
        duration_ms=line["duration_ms"] or 0,
        bytes_received=line["bytes_received"],
        retry_after=int(retry_after) if retry_after else None,
        llm=line["llm"] or {},
    )
