"""extproc/exchange/outcome.py: what people call where a request went."""

import pytest

from extproc.exchange.outcome import Place

WORKLOAD = "gpt35-adapter-7d9f-x;ai-platform;gpt35-adapter;v1;Kubernetes"
CLUSTER = "outbound|8080|v1|gpt4-adapter.ai-platform.svc.cluster.local"


@pytest.mark.parametrize(
    ("place", "upstream"),
    [
        (Place(), ""),
        (Place(cluster="llm-fallback-premium", workload=WORKLOAD), "gpt35-adapter"),
        (Place(cluster=CLUSTER, workload=";;;;Kubernetes"), "gpt4-adapter"),
        (Place(cluster=CLUSTER), "gpt4-adapter"),
        (Place(cluster="outbound|443||api.openai.com"), "api.openai.com"),
        (Place(cluster="gpt4-adapter"), "gpt4-adapter"),
        (Place(workload=WORKLOAD), ""),
        (Place(cluster="x", workload="a;b"), "x"),
    ],
)
def test_an_upstream_has_the_name_of_the_service_that_answered(place: Place, upstream: str) -> None:
    assert place.upstream == upstream
