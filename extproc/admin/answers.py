"""What the admin server asks for each of its paths, of this process or of several."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from extproc.admin.overview import Overviews, query_of
from extproc.admin.redaction import settings_shown
from extproc.admin.views import Views
from extproc.telemetry.recent import Recent

_JSON: Final = msgspec.json.Encoder(decimal_format="number")

Json = tuple[int, bytes]
"""A status, and what is said with it."""


class Answers(Protocol):
    """Whoever knows."""

    async def overview(self, parameters: Mapping[str, str]) -> Json:
        """Everything that the page shows, or what is wrong with the question."""

    async def settings(self, tenant: str) -> Json:
        """The settings in force, and how the last reload went."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """What an `Accept` header gets, and its content type."""

    async def why_not_ready(self) -> str:
        """Why requests can't be served; empty while they can."""


class OwnAnswers:
    """Of this process alone."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._overviews = Overviews(views)

    async def overview(self, parameters: Mapping[str, str], recent: Recent | None = None) -> Json:
        """The same; of the last minutes what `recent` says, if it is given."""
        query = query_of(parameters)
        if isinstance(query, str):
            return 400, json_of({"error": query})
        return 200, json_of(await self._overviews.overview(query, recent))

    async def settings(self, tenant: str) -> Json:
        """The same."""
        return 200, json_of(settings_shown(self._views.settings(), tenant=tenant))

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The same."""
        return self._views.metrics(accept)

    async def why_not_ready(self) -> str:
        """The same."""
        return self._views.is_ready()


def json_of(value: Any) -> bytes:  # noqa: ANN401  # whatever can be encoded
    """Write it as the admin server does."""
    return _JSON.encode(value)
