"""A rendering starts on a real Envoy, whatever the manifests: those of all six cases."""

import json
import subprocess
from pathlib import Path

import pytest

from extproc.demo.envoy import find_binary
from extproc.mesh.bootstrap import bootstrap
from extproc.mesh.manifests import MeshError, read
from extproc.mesh.render import render
from extproc.mesh.world import Proxy, world_of

CASES = Path(__file__).parents[1] / "data" / "istiod"
PROXIES = {
    "gateway": Proxy("gateway", "ai-platform", {"istio": "ingressgateway"}),
    "sidecar": Proxy("sidecar", "ai-platform", {"app": "llm-router", "version": "stable"}),
}
NEED_CERTIFICATES = {"4-destination-rules"}


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir() if path.is_dir()))
def test_envoy_takes_it(case: str, kind: str, envoy_version: str, tmp_path: Path) -> None:
    rendered = render(world_of(read([CASES / case / "input.yaml"])), PROXIES[kind])
    if case in NEED_CERTIFICATES:
        with pytest.raises(MeshError, match="certificates"):
            bootstrap(rendered)
        return
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap(rendered)))

    command = [str(find_binary(envoy_version)), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
