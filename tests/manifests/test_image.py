"""The Dockerfile, as far as it can be held to anything without building it."""

import re
from pathlib import Path

from tests.manifests.folder import one
from tests.manifests.generate import ISTIO

ROOT = ISTIO.parent
TEXT = (ROOT / "Dockerfile").read_text()


def _copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }

    assert all((ROOT / name).exists() for name in _copied())
    assert let_through == set(_copied())


def test_otlp_is_installed_after_what_overwrites_it() -> None:
    installs = re.findall(r"pip install (.*)", TEXT)

    assert [re.findall(r"requirements/(\w+)", each) for each in installs] == [
        ["runtime"],
        ["last"],
        [],
    ]
    assert all("--require-hashes" in each for each in installs[:2])
    assert "--force-reinstall" in installs[1]
    assert "--no-deps" in installs[1]
    assert "--no-deps" in installs[2]


def test_the_user_and_the_command_are_those_of_the_deployment() -> None:
    pod = one("base/deployment.yaml", "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    user = pod["securityContext"]["runAsUser"]

    assert f"USER {user}:{user}" in TEXT
    assert 'ENTRYPOINT ["llm-extproc"]' in TEXT
    assert str(container["args"]).replace("'", '"') in TEXT
    assert container["args"][-1] == "/etc/llm/policy.yaml"
    assert Path(container["volumeMounts"][0]["mountPath"]) == Path("/etc/llm")
