"""Meshes, one for each Envoy; their logs are shown for a test that fails, and only then."""

import asyncio
import inspect
from collections.abc import Generator, Iterator, Mapping

import pytest

from extproc.cli import TRANSPORT_VARIABLE
from extproc.demo import stage
from tests.conformance.harness import Mesh, last_words, running
from tests.conftest import CHOSEN

VERSIONS = {"1.37.0": "grpcio", "1.40.0": "h2"}
"""The oldest that Istio has, and the newest that there is; and what our service speaks gRPC by."""

ALL_VERSIONS = {"1.37.0": "grpcio", "1.38.3": "h2", "1.39.3": "grpcio", "1.40.0": "h2"}
ON_ALL = ("test_mesh", "test_renderings", "test_mesh_limits", "test_fallback", "test_sidecar")
"""Tests of the rows of the mesh."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes said whose mesh a failing test used."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Mesh):
                report.sections.extend(last_words(value.folder))
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test on the oldest and the newest Envoy, and those of the mesh on all.

    So each runs on both transports; and on one alone if `LLM_EXTPROC_TRANSPORT` says so.
    """
    if "envoy_version" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        versions = ALL_VERSIONS if name in ON_ALL else VERSIONS
        pairs = [(version, CHOSEN or transport) for version, transport in versions.items()]
        metafunc.parametrize("envoy_version", pairs, ids="-".join, indirect=True, scope="session")


@pytest.fixture(scope="session")
def envoy_version(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which Envoy; and every service that is started meanwhile uses its transport."""
    version, transport = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRANSPORT_VARIABLE, transport)
        yield version


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, int]]:
    """The ports of the adapters, by name."""
    with stage.adapters(tmp_path_factory.mktemp("adapters")) as ports:
        yield ports


@pytest.fixture(scope="session")
def mesh(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    """A mesh that tests share: leave it as it was."""
    folder = tmp_path_factory.mktemp("mesh")
    with running(folder, adapters, envoy_version) as shared:
        yield shared
