"""For all tests: time decides none of them; and what those need that start our service."""

import os

import pytest
from hypothesis import settings

from extproc.cli import TRANSPORT_VARIABLE, TRANSPORTS

settings.register_profile("fuzz", deadline=None)
settings.register_profile("repeatable", settings.get_profile("fuzz"), derandomize=True)
settings.load_profile("repeatable")  # two runs of one commit say the same; `make fuzz` seeks on

CHOSEN = os.environ.get(TRANSPORT_VARIABLE)
"""What whoever runs the tests would have all of them use."""


@pytest.fixture(params=[CHOSEN] if CHOSEN else TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to speak gRPC, for every service that the test starts."""
    name: str = request.param
    monkeypatch.setenv(TRANSPORT_VARIABLE, name)
    return name
