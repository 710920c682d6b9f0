"""extproc/server/budget_serving.py with certificates: who has none of ours is not heard."""

import asyncio
import subprocess
from pathlib import Path

from extproc.server.budget_access import Access
from extproc.server.budget_serving import Tls
from tests.shell.budget_harness import World, budgets
from tests.shell.test_budget_cli import ran

SPIFFE = "spiffe://cluster.local/ns/ops/sa/finance"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)  # noqa: S607  # as found


def issue(folder: Path, name: str, alternative: str) -> None:
    """Write `name`.pem and `name`.key, which the CA in the folder vouches for."""
    request = folder / f"{name}.csr"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    about = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}")
    openssl("req", *curve, *about, "-keyout", folder / f"{name}.key", "-out", request)
    ca = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial")
    openssl(
        *("x509", "-req", "-days", "1", "-copy_extensions", "copyall"),
        *(*ca, "-in", request, "-out", folder / f"{name}.pem"),
    )


def authority(folder: Path) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    files = ("-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    openssl("req", "-x509", *curve, "-subj", "/CN=ca", *files)


def test_a_known_certificate_gives_the_right_and_another_does_not(tmp_path: Path) -> None:
    authority(tmp_path)
    issue(tmp_path, "server", "IP:127.0.0.1")
    issue(tmp_path, "known", f"URI:{SPIFFE}")
    issue(tmp_path, "other", f"URI:{SPIFFE}-2")
    read = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tls = Tls(read["server.pem"], read["server.key"], read["ca.pem"])
    access = Access(identities=frozenset((SPIFFE,)))
    ca = f"--ca={tmp_path / 'ca.pem'}"

    def certificate(name: str) -> tuple[str, str]:
        return f"--cert={tmp_path / name}.pem", f"--key={tmp_path / name}.key"

    async def run() -> None:
        async with asyncio.timeout(60), budgets(World(), access, tls=tls) as port:
            ask = ("get", "tiny", "day", f"--server=127.0.0.1:{port}")
            known = await ran(*ask, ca, *certificate("known"))
            assert known.code == 0, known.err
            other = await ran(*ask, ca, *certificate("other"))
            assert (other.code, "permission denied" in other.err) == (1, True)
            none = await ran(*ask, ca)
            assert (none.code, "unavailable" in none.err) == (1, True)
            plain = await ran(*ask)
            assert (plain.code, "unavailable" in plain.err) == (1, True)

    asyncio.run(run())
