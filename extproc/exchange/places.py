"""Where a request went, and which model serves there."""

from collections.abc import Iterator, Mapping

from extproc.exchange.outcome import Place
from extproc.policy.models import Model


def served_model(models: Mapping[str, Model], meant: str, place: Place) -> str:
    """Name the model whose `served_by` knows where the request went; else the one meant."""
    names = frozenset(_names_of(place))
    if meant in models and not names.isdisjoint(models[meant].served_by):
        return meant
    found = (name for name, model in models.items() if not names.isdisjoint(model.served_by))
    return next(found, meant)


def _names_of(place: Place) -> Iterator[str]:
    """All names that an operator may have written for where a request went.

    A cluster of istiod's is `outbound|8080|v1|adapter.models.svc.cluster.local`; a workload is
    `pod;namespace;service;version;cluster`.
    """
    yield from place.workload.split(";")
    yield place.cluster
    service = place.cluster.rpartition("|")[2]
    yield service
    yield service.partition(".")[0]
    yield place.host
    yield place.host.rpartition(":")[0]
