"""A port that several processes of ours may listen on, and nobody else."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved(address: str, port: int) -> Iterator[int]:
    """Keep a port, of which 0 takes a free one, for our workers until the block ends.

    It is bound and never listens, so that no connection comes here. Whoever listens on it already,
    even by SO_REUSEPORT, is noticed because that is set only afterwards; two who begin at the same
    moment are not.

    Raises:
        RuntimeError: it can't be bound.
    """
    host = address.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind((host, port))
        except OSError as error:
            msg = f"{address}:{port} can't be bound: {error}"
            raise RuntimeError(msg) from error
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield kept.getsockname()[1]
