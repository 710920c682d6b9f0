"""What the admin server is given to show, put together."""

from collections.abc import Callable

from extproc.admin.views import Books, InForce, Reload, Views
from extproc.ledger.port import OpenLedger
from extproc.observing import Observing
from extproc.server.rulebook import Rulebook


class Readiness:
    """Whether the service should get requests; `phase` says why not, empty while it serves."""

    def __init__(self, rulebook: Rulebook, ledger: OpenLedger) -> None:
        self._rulebook = rulebook
        self._ledger = ledger
        self.phase = "starting"

    def why_not(self) -> str:
        """Where the ledger can't commit, decisions still go on, unless the settings say not."""
        wanted = self._rulebook.loaded.settings.ledger.when_unavailable
        return self.phase or (self._ledger.health() if wanted == "deny" else "")


def views_of(
    rulebook: Rulebook,
    ledger: OpenLedger,
    observing: Observing,
    readiness: Readiness,
    clock: Callable[[], float],
) -> Views:
    """All that can be seen of one process."""
    return Views(
        metrics=observing.metrics.expose,
        is_ready=readiness.why_not,
        settings=lambda: _in_force(rulebook),
        budgets=lambda: Books(rulebook.rules.policy, ledger),
        recent=observing.recent,
        clock=clock,
    )


def _in_force(rulebook: Rulebook) -> InForce:
    attempt = rulebook.last_attempt
    return InForce(
        rulebook.loaded.settings,
        rulebook.since,
        Reload(*attempt) if attempt is not None else None,
        rulebook.needs_restart,
    )
