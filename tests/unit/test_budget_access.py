"""extproc/server/budget_access.py: who may look after budgets."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from extproc.server.budget_access import TOKEN_BYTES_MAX, Access, Caller

TOKEN = "-".join(["0123456789abcdef"] * 2)
ELSEWHERE = "ipv4:10.0.0.9:4711"
SPIFFE = "spiffe://cluster.local/ns/ops/sa/finance"
LOCAL = Access(is_loopback_trusted=True)


def bearing(*values: str | bytes, peer: str = ELSEWHERE) -> Caller:
    return Caller(peer, [("authorization", value) for value in values], {})


def certified(*names: bytes, transport: Sequence[bytes] = (b"ssl",)) -> Caller:
    certificate = {"transport_security_type": transport, "x509_subject_alternative_name": names}
    return Caller(ELSEWHERE, (), certificate)


@pytest.fixture
def kept(tmp_path: Path) -> Access:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    return Access(token_file=file)


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ("ipv4:127.0.0.1:5", "loopback"),
        ("ipv6:[::1]:5", "loopback"),
        ("ipv6:%5B::1%5D:5", "loopback"),
        ("ipv4:127.0.0.6:5", ""),  # an Istio proxy beside us
        ("ipv4:127.0.0.10:5", ""),
        ("ipv4:10.0.0.9:5", ""),
        ("ipv6:[::11]:5", ""),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_this_machine_is_what_calls_from_its_own_address(peer: str, who: str) -> None:
    assert LOCAL.who(Caller(peer, (), {})) == who
    assert not Access().who(Caller(peer, (), {}))


@pytest.mark.parametrize("name", ["x-forwarded-for", "x-forwarded-client-cert", "forwarded", "via"])
def test_what_a_proxy_hands_on_is_not_from_this_machine(name: str) -> None:
    assert not LOCAL.who(Caller("ipv4:127.0.0.1:5", [(name, "10.0.0.9")], {}))


def test_a_token_must_be_the_one_in_the_file(kept: Access) -> None:
    assert kept.who(bearing(f"Bearer {TOKEN}")) == "token"


@pytest.mark.parametrize(
    "values",
    [
        (),
        (TOKEN,),
        (f"Basic {TOKEN}",),
        ("Bearer ",),
        (f"Bearer {TOKEN}x",),
        (f"Bearer {TOKEN[:-1]}",),
        (f"Bearer {TOKEN}".encode(),),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        ("Bearer \ud800",),
    ],
)
def test_any_other_is_none(kept: Access, values: tuple[str, ...]) -> None:
    assert not kept.who(bearing(*values))


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"x" * 15])
def test_a_file_without_a_real_token_lets_nobody_in(kept: Access, content: bytes) -> None:
    assert kept.token_file is not None
    kept.token_file.write_bytes(content)

    for presented in (content.decode(), TOKEN, ""):
        assert not kept.who(bearing(f"Bearer {presented}"))


def test_a_changed_token_counts_at_once_and_a_lost_file_lets_nobody_in(kept: Access) -> None:
    assert kept.token_file is not None
    kept.token_file.write_text(TOKEN[::-1])
    assert not kept.who(bearing(f"Bearer {TOKEN}"))
    assert kept.who(bearing(f"Bearer {TOKEN[::-1]}")) == "token"
    kept.token_file.unlink()
    assert not kept.who(bearing(f"Bearer {TOKEN[::-1]}"))


def test_a_token_that_is_too_long_is_none(kept: Access) -> None:
    assert kept.token_file is not None
    kept.token_file.write_text("x" * (TOKEN_BYTES_MAX + 1))

    assert not kept.who(bearing("Bearer " + "x" * TOKEN_BYTES_MAX))


def test_a_certificate_counts_by_its_whole_name() -> None:
    access = Access(identities=frozenset((SPIFFE,)))

    assert access.who(certified(b"localhost", SPIFFE.encode())) == SPIFFE
    assert not access.who(certified(SPIFFE.encode() + b"2"))
    assert not access.who(certified(SPIFFE.encode()[:-1]))
    assert not access.who(certified())
    assert not access.who(certified(SPIFFE.encode(), transport=(b"insecure",)))
    assert not access.who(certified(SPIFFE.encode(), transport=()))
