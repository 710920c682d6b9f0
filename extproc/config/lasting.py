"""Settings that last as long as the process: what was opened or bound by them stays as it is."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from extproc.config.problems import Steps, path_text
from extproc.config.settings import Settings

LASTING: Final[tuple[Steps, ...]] = (
    ("listen",),
    ("admin",),
    ("budget_api",),
    ("ledger",),
    ("meter",),  # Envoy's filters belong to it
    ("telemetry",),
    ("limits", "request_body_bytes"),  # gRPC's own limit goes by it
    ("limits", "prompt_exact_bytes"),
)


class Kept(NamedTuple):
    """New settings, but for those that last; and which of these need a restart, as `$.path`."""

    settings: Settings
    needs_restart: tuple[str, ...]


def kept(new: Settings, *, running: Settings, begun: Settings) -> Kept:
    """Take over what can change.

    `running` are the settings in force; `begun` those of the file when the process began, from
    which the command line may have differed.
    """
    settings = new
    for steps in LASTING:
        settings = _replaced(settings, steps, _at(running, steps))
    needs = [
        path_text(way)
        for steps in LASTING
        for way in _differences(_at(new, steps), _at(begun, steps), steps)
    ]
    return Kept(settings, tuple(needs))


def _at(settings: Settings, steps: Steps) -> Any:  # noqa: ANN401  # whatever stands there
    value: Any = settings
    for step in steps:
        value = getattr(value, str(step))
    return value


def _replaced(section: Any, steps: Steps, value: object) -> Any:  # noqa: ANN401  # as above
    name, *rest = map(str, steps)
    inner = _replaced(getattr(section, name), tuple(rest), value) if rest else value
    return msgspec.structs.replace(section, **{name: inner})


def _differences(new: object, old: object, at: Steps) -> Iterator[Steps]:
    if isinstance(new, msgspec.Struct) and type(new) is type(old):
        for name in new.__struct_fields__:
            yield from _differences(getattr(new, name), getattr(old, name), (*at, name))
    elif new != old:
        yield at
