"""What the admin server is given to show. It asks anew for every request."""

from collections.abc import Callable
from typing import NamedTuple

from extproc.config.settings import Settings
from extproc.ledger.port import OpenLedger
from extproc.policy.decide import Policy
from extproc.telemetry.recent import Recent


class Reload(NamedTuple):
    """How the last attempt to take over a changed file ended; without problems, well."""

    at: float
    problems: tuple[str, ...] = ()


class InForce(NamedTuple):
    """The settings that decide now, since when, and how the last reload went, if there was one."""

    settings: Settings
    since: float
    last_reload: Reload | None = None
    needs_restart: tuple[str, ...] = ()
    """Settings, as `$.path`, that have changed in the file and are not in force."""


class Books(NamedTuple):
    """Who may use what, and what is used of it."""

    policy: Policy
    ledger: OpenLedger


class Views(NamedTuple):
    """All that can be seen. None of these waits, or changes anything."""

    metrics: Callable[[str], tuple[bytes, str]]
    """What an `Accept` header gets, and its content type."""
    is_ready: Callable[[], str]
    """Why requests can't be served; empty while they can."""
    settings: Callable[[], InForce]
    budgets: Callable[[], Books]
    recent: Recent
    clock: Callable[[], float]
