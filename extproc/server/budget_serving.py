"""Our own gRPC interface on a port of its own: every call is asked for its right first."""

import logging
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from extproc.budgets_api.budgets_pb2_grpc import add_BudgetServiceServicer_to_server
from extproc.server.budget_access import Access, caller_of
from extproc.server.budget_service import BudgetService, Refusal

CALLS_MAX: Final = 64
"""At a time."""

MESSAGE_BYTES_OVERHEAD: Final = 1 << 20
GRACE_SECONDS: Final = 0.5
"""For calls to end: they take milliseconds, and whoever watches comes back."""

FORBIDDEN: Final = Refusal(
    grpc.StatusCode.PERMISSION_DENIED,
    "budgets are looked after from this machine, with a token, or with a known certificate",
)
_BROKEN: Final = Refusal(grpc.StatusCode.INTERNAL, "internal error")

_log = logging.getLogger(__name__)

_Unary = Callable[[Any, str], Awaitable[Any]]
_Stream = Callable[[Any, str], AsyncGenerator[Any, None]]


class Tls(NamedTuple):
    """PEM. Where `client_ca` is given, only clients with a certificate of it are heard."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


@asynccontextmanager
async def serving_budgets(
    service: BudgetService, access: Access, *, address: str, tls: Tls | None = None
) -> AsyncIterator[int]:
    """Serve until the block ends.

    Yields:
        The port in use, so that one may ask for port 0.

    Raises:
        RuntimeError: the address can't be bound, or the TLS files are not what they should be.
    """
    bytes_max = service.request_body_bytes_max + MESSAGE_BYTES_OVERHEAD
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", bytes_max), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=CALLS_MAX,
    )
    add_BudgetServiceServicer_to_server(_Guarded(service, access), server)
    if tls is None:
        port: int = server.add_insecure_port(address)
    else:
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.client_ca, tls.client_ca is not None
        )
        port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=GRACE_SECONDS)


class _Guarded:
    """The service as gRPC wants it. There is no way to it but through `_right`."""

    def __init__(self, service: BudgetService, access: Access) -> None:
        self._access = access
        self.Get = self._unary(service.get)
        self.List = self._unary(service.list)
        self.Watch = self._stream(service.watch)
        self.Adjust = self._unary(service.adjust)
        self.Reset = self._unary(service.reset)
        self.Explain = self._unary(service.explain)

    async def _right(self, context: Any) -> str:  # noqa: ANN401  # grpc has no types
        by = self._access.who(caller_of(context))
        if not by:
            await context.abort(*FORBIDDEN)
        return by

    def _unary(self, method: _Unary) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:  # noqa: ANN401  # the same
            by = await self._right(context)
            try:
                answer = await method(request, by)
            except Exception as error:  # noqa: BLE001  # a barrier between calls
                _say_where(error)
                answer = _BROKEN
            if isinstance(answer, Refusal):
                await context.abort(*answer)
            return answer

        return call

    def _stream(self, method: _Stream) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401  # the same
            by = await self._right(context)
            try:
                async with aclosing(method(request, by)) as answers:
                    async for answer in answers:
                        if isinstance(answer, Refusal):
                            await context.abort(*answer)
                        yield answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # the same
                _say_where(error)
                await context.abort(*_BROKEN)

        return call


def _say_where(error: Exception) -> None:
    """Log where it failed, but not the message: it may quote a prompt or a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("budgets.failed %s\n%s", type(error).__name__, where)
