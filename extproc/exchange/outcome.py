"""How one request ended: what the filter and the meter noted about it, and what Envoy saw.

An access-log record becomes one `Outcome` (in `wire`). Everything that needs the end of a
request is done from it: the settlement, metrics, the span, the audit line.
"""

from typing import Annotated, Final, NamedTuple

import msgspec

from extproc.llm.dialects import Dialect

NUMBER_MAX: Final = 1 << 53
"""Metadata are doubles: beyond this they are no whole numbers."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
_Text = Annotated[str, msgspec.Meta(max_length=8192)]


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """The dynamic metadata `llm` of one request. The names are those of `contract.md`.

    First what the filter noted when it decided, then what the meter noted of the answer.
    """

    outcome: _Text = ""
    """`routed`, `refused`, or empty: the filter did not see it."""
    reason: _Text = ""
    tenant: _Text = ""
    identity: _Text = ""
    plan: _Text = ""
    dialect: Dialect | None = None
    requested_model: _Text = ""
    stream: bool = False
    complexity: float = 0.0
    temperature: float | None = None
    output_tokens_max: _Number | None = None
    """The request's own, where it named one."""
    prompt_tokens: _Number = 0
    tier: _Text = ""
    model: _Text = ""
    priority: _Number = 0
    downgraded_from: _Text = ""
    reservation: _Text = ""
    reserved: _Text = ""
    """What is held: read it with `holds_of`."""
    budget_warnings: _Text = ""
    meter: _Text = ""
    """`observe` where its answer was to be copied to us."""
    served_model: _Text = ""
    """That of the host of the last attempt, where attempts were shown to us."""
    unattributed: bool = False
    """An LLM call that passed a filter which failed open."""

    usage: _Text = ""
    usage_start: _Text = ""
    events: _Number = 0
    bytes: _Number = 0
    meter_error: _Text = ""


class Timing(NamedTuple):
    """Microseconds since the request began; None for what never happened."""

    request_received: int | None = None
    """Its last byte, from the client."""
    request_sent: int | None = None
    """Its last byte, to the upstream."""
    first_byte: int | None = None
    """Of the answer, from the upstream: time to first token, where the answer streams."""
    answer_received: int | None = None
    """Its last byte, from the upstream."""
    ended: int = 0
    """The last byte of the answer to the client, or what came instead."""


class Place(NamedTuple):
    """Where a request went: empty strings for nowhere."""

    route: str = ""
    cluster: str = ""
    host: str = ""
    workload: str = ""
    attempts: int = 0

    @property
    def upstream(self) -> str:
        """What people call where the request went; empty for nowhere.

        The service of the workload that answered, where istiod says it: the cluster may be one
        of several models. Else the service in istiod's name for the cluster, else that name.
        """
        parts = self.workload.split(";")
        if self.cluster and len(parts) > _SERVICE_PART and parts[_SERVICE_PART]:
            return parts[_SERVICE_PART]
        host = self.cluster.rpartition("|")[2]
        return host.partition(".")[0] if host.endswith(_IN_CLUSTER) else host


_SERVICE_PART: Final = 2
"""Of `pod;namespace;service;version;cluster`."""

_IN_CLUSTER: Final = ".svc.cluster.local"


class Trace(NamedTuple):
    """The server span of Envoy, in lower-case hex; empty where there is none."""

    trace_id: str = ""
    span_id: str = ""
    is_sampled: bool = False


class Outcome(NamedTuple):
    """One finished request. `started` is in seconds since 1970."""

    stream_id: str
    started: float
    method: str
    path: str
    status: int
    """As the client saw it; 0 where it saw none."""
    flags: str
    """Envoy's response flags, `-` for none."""
    details: str
    bytes_received: int
    bytes_sent: int
    noted: Noted
    place: Place
    timing: Timing
    trace: Trace

    @property
    def was_answered(self) -> bool:
        """Whether an upstream gave an answer that is paid for."""
        return 200 <= self.status < 300 and bool(self.place.host)  # noqa: PLR2004  # RFC 9110

    @property
    def is_aborted(self) -> bool:
        """Whether the answer, or the wait for it, ended before it was whole."""
        return self.status == 0 or not _CUT_OFF.isdisjoint(self.flags.split(","))


_CUT_OFF: Final = frozenset({"DC", "DPE", "UC", "UR", "UPE", "UT", "SI", "DT", "LR"})
