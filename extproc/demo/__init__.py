"""The whole thing on one machine: a real Envoy, the filter, model adapters, two SDKs.

`process` starts children, `envoy` an Envoy, `stage` all of it; the conformance tests stand on
the same three. `replicas` are several services, and `valkey` what they share. `adapters` and `hops`
are what is behind Envoy, `clients` and `steps` what is in front; `play` takes the steps while
`screen` shows what Envoy's access log says about them. At the end `figures` compares what the
service charged with what the models say they served.
"""

from typing import Final

REPLICAS_MAX: Final = 9
"""Each is a process with vocabularies of its own."""


def run(*, keep: bool = False, plain: bool = False, replicas: int = 1) -> int:
    """Run the demo: 0 if every step went as it says it should, 1 if not."""
    from extproc.demo.show import run as run_show  # noqa: PLC0415  # adapters need no SDK

    return run_show(keep=keep, plain=plain, replicas=replicas)
