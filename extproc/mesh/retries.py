"""When and how often Envoy tries again: its RetryPolicy of Istio's HTTPRetry.

Facts from istiod's `pilot/pkg/networking/core/route/retry/retry.go`.
"""

from typing import Any, Final

from extproc.mesh.route_fields import Fields, status_code

Config = dict[str, Any]

DEFAULT_ATTEMPTS: Final = 2
DEFAULT_RETRY_ON: Final = (
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
)
_STATUS_CODES: Final = "retriable-status-codes"
_TYPES: Final = "type.googleapis.com/envoy.extensions.retry"


def retry_policy(said: Fields | None, *, is_hashed: bool) -> Config | None:
    """The policy, istiod's default where a route says none; None where `attempts` is 0.

    Destinations chosen by a hash are tried again on the same host: there is no other.
    """
    found: Config = {
        "num_retries": DEFAULT_ATTEMPTS,
        "retry_on": DEFAULT_RETRY_ON,
        # A 64-bit integer is text in protobuf JSON.
        "host_selection_retry_max_attempts": "5",
    }
    if not is_hashed:
        found["retry_host_predicate"] = _other_hosts()
    if said is None:
        return found
    if not said.get("attempts"):
        return None
    found["num_retries"] = said["attempts"]
    if said.get("retryOn"):
        found |= _reasons(said["retryOn"])
    if "perTryTimeout" in said:
        found["per_try_timeout"] = said["perTryTimeout"]
    if "retryIgnorePreviousHosts" in said:
        found.pop("retry_host_predicate", None)
        if said["retryIgnorePreviousHosts"]:
            found["retry_host_predicate"] = _other_hosts()
    if said.get("retryRemoteLocalities"):
        found["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{_TYPES}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        }
    if "backoff" in said:
        found["retry_back_off"] = {"base_interval": said["backoff"]}
    return found


def _reasons(retry_on: str) -> Config:
    """Numbers are status codes to retry, and imply the word for them; the rest is Envoy's."""
    tokens = retry_on.split(",")
    codes = [code for code in map(status_code, tokens) if code is not None]
    words = ",".join(token for token in tokens if status_code(token) is None)
    if codes and _STATUS_CODES not in words:
        # Of numbers alone istiod makes a leading comma; Envoy reads nothing before it.
        words += f",{_STATUS_CODES}"
    return {"retry_on": words} | ({"retriable_status_codes": codes} if codes else {})


def _other_hosts() -> list[Config]:
    return [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": f"{_TYPES}.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }
    ]
