"""One attempt to serve a request: the model that the body names follows the host that serves.

A filter on an aggregate cluster shows us every attempt, with the host that was chosen for it.
Header changes of one attempt are seen by the next, body changes are not: so the header that
names the model that was meant is left alone, and the body is judged anew each time.
"""

from collections.abc import Mapping

import msgspec

from extproc.exchange import names
from extproc.exchange.actions import Keep, ReadBody, Replace
from extproc.exchange.events import AttemptHeaders
from extproc.exchange.outcome import Place
from extproc.exchange.places import served_model
from extproc.llm.body import JsonObject, Splice, read_object, spliced
from extproc.policy.models import Model


def model_of_attempt(models: Mapping[str, Model], head: AttemptHeaders) -> str:
    """The model that the attempt's host serves; the one that was meant where nobody knows it.

    Empty where no model was meant: the request was never routed by us.
    """
    meant = head.headers.get(names.MODEL, "")
    if not meant:
        return ""
    return served_model(models, meant, Place(host=head.address, workload=head.workload))


def attempt(head: AttemptHeaders, model: str) -> Keep | ReadBody:
    """What to do about an attempt whose host serves this model."""
    if model == head.headers.get(names.MODEL, ""):
        return Keep({"served_model": model} if model else {})
    return ReadBody()


def replace(body: bytes, model: str) -> Replace:
    """Make the body name this model; every other byte stays."""
    metadata = {"served_model": model}
    tree = read_object(body)
    named = tree.spans.get("model") if isinstance(tree, JsonObject) else None
    if named is None:
        return Replace(None, metadata)
    return Replace(spliced(body, [Splice(named, msgspec.json.encode(model))]), metadata)
