"""What the head of a request tells before its body is read."""

from collections.abc import Mapping
from typing import Final

from extproc.llm.errors import Fault
from extproc.policy.refusals import Refused

CONTENT_LENGTH_DIGITS_MAX: Final = 18

SCREENED: Final = frozenset(
    {
        ":method",
        ":path",
        ":protocol",
        "content-encoding",
        "content-length",
        "content-type",
        "upgrade",
    }
)
"""Names of the headers that tell what a request is."""


def is_upgrade(headers: Mapping[str, str]) -> bool:
    """Whether the request asks for another protocol: its body would never end."""
    return "upgrade" in headers or ":protocol" in headers or headers.get(":method") == "CONNECT"


def screen(headers: Mapping[str, str], *, body_bytes_max: int) -> Refused | None:
    """Refuse what is not a JSON body that we would read, or None.

    A missing content-type is taken for JSON, as most servers do. A compressed body is refused:
    what we can't read we can't count, and letting it through would go round the policy.
    """
    if is_upgrade(headers):
        return Refused(Fault.UPGRADE_REFUSED, "This path takes no protocol upgrade.")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("", "application/json") and not media_type.endswith("+json"):
        message = "The content-type must be application/json."
        return Refused(Fault.UNSUPPORTED_MEDIA_TYPE, message)
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        message = "The body must not be compressed: send it without content-encoding."
        return Refused(Fault.UNSUPPORTED_MEDIA_TYPE, message)
    length = headers.get("content-length", "")
    if len(length) > CONTENT_LENGTH_DIGITS_MAX or (
        length.isascii() and length.isdigit() and int(length) > body_bytes_max
    ):
        return too_large(body_bytes_max)
    return None


def too_large(body_bytes_max: int) -> Refused:
    """Say how much a body may hold."""
    message = f"The body is larger than {body_bytes_max} bytes."
    return Refused(Fault.REQUEST_TOO_LARGE, message)
