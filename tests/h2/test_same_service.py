"""All that tests/shell asks of the service on grpc.aio, asked of it on our own transport."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from extproc.server.h2.decision import Decisions
from extproc.server.h2.lifecycle import serving
from tests.scenarios.harness import Bare
from tests.shell import harness, test_grpc, test_intake, test_watcher

_MODULES = (test_grpc, test_intake, test_watcher)
_OF_GRPC_AIO = {"test_what_envoy_may_have_heard_of_is_not_given_back"}
"""They hand the service a context of grpc.aio; `test_decision` has what they say of ours."""


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare()


@pytest.fixture(autouse=True)
def our_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (harness, *_MODULES):
        if hasattr(module, "serving"):
            monkeypatch.setattr(module, "serving", serving)
        if hasattr(module, "Servicer"):
            monkeypatch.setattr(module, "Servicer", Decisions)
    monkeypatch.setattr("extproc.app.Servicer", Decisions)


def _tests(module: ModuleType) -> Iterator[tuple[str, object]]:
    for name, found in vars(module).items():
        if name.startswith("test_") and name not in _OF_GRPC_AIO:
            yield f"{name}_{module.__name__.rpartition('_')[2]}", found


for _module in _MODULES:
    globals().update(_tests(_module))
