"""Runs a call on the bare exchange: no gRPC, no Envoy, an in-memory ledger."""

import asyncio
from pathlib import Path
from typing import Any

from msgspec import structs

from extproc import app
from extproc.config.loader import load_file
from extproc.exchange import actions
from extproc.exchange.events import RequestBody, RequestHeaders
from extproc.exchange.machine import Exchange
from extproc.ledgers import empty_ledger
from extproc.policy.budgets import Reserve
from extproc.server.rulebook import rules_of
from tests.scenarios.table import SETTINGS, Call


class Bare:
    """The rules, a counter and a ledger; each call gets an exchange of its own."""

    def __init__(self, settings: Path = SETTINGS, **changes: Any) -> None:
        loaded = load_file(settings)
        self.rules = structs.replace(rules_of(loaded), **changes)
        self.counter = app.counter_of(loaded)
        self.ledger = empty_ledger(loaded, app.clock)
        self.exchange = self.new_exchange()

    def new_exchange(self) -> Exchange:
        self.exchange = Exchange(self.rules, self.counter, reservation=app.new_reservation())
        return self.exchange

    def send(self, call: Call) -> actions.Final:
        """Run one whole exchange."""
        exchange = self.new_exchange()
        action = exchange.receive(headers_of(call))
        while not isinstance(action, actions.Final):
            if isinstance(action, Reserve):
                action = exchange.receive(asyncio.run(self.ledger.reserve(action)))
            else:
                action = exchange.receive(RequestBody(call.body))
        return action


def headers_of(call: Call) -> RequestHeaders:
    headers = {":method": call.method, ":path": call.path, **call.all_headers()}
    return RequestHeaders(headers, not call.body, {}, "")
