"""`grpc.health.v1.Health`: Check and Watch."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extproc.server.h2 import answers
from extproc.server.h2.call import Call
from extproc.server.h2.heads import Method


def _message(status: int) -> bytes:
    return bytes(HealthCheckResponse(status=status).SerializeToString())


UNKNOWN: Final = _message(HealthCheckResponse.SERVICE_UNKNOWN)
SERVING: Final = _message(HealthCheckResponse.SERVING)
NOT_SERVING: Final = _message(HealthCheckResponse.NOT_SERVING)


class Health:
    """All services are well until `stop`."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._answer = SERVING
        self._watching: set[Call] = set()

    def methods(self) -> Mapping[bytes, Method]:
        """What a server is given."""
        return {
            b"/grpc.health.v1.Health/Check": partial(Check, self),
            b"/grpc.health.v1.Health/Watch": partial(Watch, self),
        }

    def of(self, service: str) -> bytes:
        """How a service is: one of the answers above."""
        return self._answer if service in self._services else UNKNOWN

    def watch(self, call: Call) -> None:
        """Tell this call too when all is over."""
        self._watching.add(call)

    def forget(self, call: Call) -> None:
        """Tell it no more."""
        self._watching.discard(call)

    def stop(self) -> None:
        """Say to everyone that the end is near. Calls that watch have nothing more to see."""
        self._answer = NOT_SERVING
        for call in self._watching:
            call.send(NOT_SERVING)
            call.finish(answers.UNAVAILABLE, "draining")
        self._watching.clear()


class _Asked:
    """A call of one message, which names a service."""

    def __init__(self, health: Health, call: Call) -> None:
        self._health = health
        self._call = call
        self._service: str | None = None

    def on_message(self, message: bytes) -> None:
        """Hear which service is asked after."""
        if self._service is not None:
            self._call.finish(answers.UNIMPLEMENTED, "more than one message")
            return
        try:
            self._service = HealthCheckRequest.FromString(message).service
        except DecodeError:
            self._call.finish(answers.INTERNAL, "no such message")

    def on_end(self) -> None:
        """Answer."""
        if self._service is None:
            self._call.finish(answers.UNIMPLEMENTED, "no message")
        else:
            self.answer(self._service)

    def on_cancel(self) -> None:
        """Forget it."""
        self._health.forget(self._call)

    def answer(self, service: str) -> None:
        """Answer about this service."""
        raise NotImplementedError


class Check(_Asked):
    """How a service is now."""

    def answer(self, service: str) -> None:
        """Say so, or that nobody knows it."""
        found = self._health.of(service)
        if found == UNKNOWN:
            self._call.finish(answers.NOT_FOUND, "unknown service")
        else:
            self._call.send(found)
            self._call.finish()


class Watch(_Asked):
    """How a service is, now and whenever that changes."""

    def answer(self, service: str) -> None:
        """Say so, and stay."""
        found = self._health.of(service)
        self._call.send(found)
        if found == NOT_SERVING:
            self._call.finish(answers.UNAVAILABLE, "draining")
        elif found == SERVING:
            self._health.watch(self._call)
