"""With `rewrite_model` the upstream is asked for the tier's model, and for nothing else."""

import hashlib
from collections.abc import Iterator, Mapping

import pytest

from tests.conformance.harness import Mesh, mark, running

BODY = (
    b'{ "x": "gpt-3.5-turbo", "model" :"gpt-3.5-turbo",'
    b'"messages":[{"role":"user","content":"\\u00e9"}]}\n'
)


@pytest.fixture(scope="module")
def rewriting(
    tmp_path_factory: pytest.TempPathFactory, adapters: Mapping[str, int], envoy_version: str
) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("rewriting")
    with running(folder, adapters, envoy_version, rewrite_model=True) as mesh:
        yield mesh


@pytest.mark.parametrize(
    ("tenant", "model"),
    [("acme", b"gpt-4"), ("initech", b"local-llama"), ("oddity", b"local-llama")],
)
async def test_only_the_model_changes(rewriting: Mesh, tenant: str, model: bytes) -> None:
    step = mark()

    answer = await rewriting.send(BODY, step=step, tenant=tenant)

    entry = await rewriting.the_entry(step)
    wanted = BODY.replace(b'"model" :"gpt-3.5-turbo"', b'"model" :"%b"' % model)
    assert answer.status == 200
    assert f"asked for {model.decode()}" in answer.body.decode()
    assert entry.body_sha256 == hashlib.sha256(wanted).hexdigest()
    assert entry.header("content-length") == str(len(wanted)) == str(entry.body_bytes)


async def test_a_body_that_asks_for_the_tiers_model_stays_as_it_is(rewriting: Mesh) -> None:
    step = mark()
    body = BODY.replace(b'"model" :"gpt-3.5-turbo"', b'"model" :"gpt-4"')

    await rewriting.send(body, step=step)

    entry = await rewriting.the_entry(step)
    assert entry.body_sha256 == hashlib.sha256(body).hexdigest()
