"""What a route says to Envoy's HTTP filters: faults and cross-origin sharing.

Facts from istiod's `pilot/pkg/networking/core/route/route.go`.
"""

from typing import Any, Final

from extproc.mesh.matching import string_matcher
from extproc.mesh.route_fields import GRPC_STATUSES, Fields

Config = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions.filters.http"
_PER_MILLION: Final = 10_000
"""Of a percent."""


def filter_configs(route: Fields) -> Config:
    """A route's `typed_per_filter_config`; empty where it has none."""
    found: Config = {}
    if "fault" in route:
        found["envoy.filters.http.fault"] = _fault(route["fault"])
    if "corsPolicy" in route:
        found["envoy.filters.http.cors"] = _cors(route["corsPolicy"])
    return found


def fraction(percentage: Fields) -> Config:
    """Envoy's FractionalPercent of an Istio Percent: in millionths, what is less is cut off."""
    return _of({"denominator": "MILLION"}, int(percentage.get("value", 0) * _PER_MILLION))


def hundredths(percent: int) -> Config:
    """Envoy's FractionalPercent of a whole number; its denominator is a hundred by default."""
    return _of({}, percent)


def _of(found: Config, numerator: int) -> Config:
    # Protobuf JSON leaves out zeros.
    return {**found, "numerator": numerator} if numerator else found


def _fault(said: Fields) -> Config:
    found: Config = {"@type": f"{_TYPES}.fault.v3.HTTPFault"}
    if "delay" in said:
        delay = said["delay"]
        found["delay"] = {
            "fixed_delay": delay["fixedDelay"],
            "percentage": fraction(delay["percentage"])
            if "percentage" in delay
            else hundredths(delay.get("percent", 0)),
        }
    if "abort" in said:
        abort = said["abort"]
        found["abort"] = (
            {"http_status": abort["httpStatus"]}
            if "httpStatus" in abort
            else {"grpc_status": GRPC_STATUSES.index(abort["grpcStatus"])}
        )
        if "percentage" in abort:
            found["abort"]["percentage"] = fraction(abort["percentage"])
    return found


def _cors(said: Fields) -> Config:
    found: Config = {
        "@type": f"{_TYPES}.cors.v3.CorsPolicy",
        "filter_enabled": {"default_value": hundredths(100)},
        "forward_not_matching_preflights": said.get("unmatchedPreflights") != "IGNORE",
    }
    if "allowOrigins" in said:
        # One that says nothing is left out by istiod too.
        origins = [string_matcher(each) for each in said["allowOrigins"] if each]
    else:
        origins = [{"exact": each} for each in said.get("allowOrigin", ())]
    if origins:
        found["allow_origin_string_match"] = origins
    for field, name in (
        ("allowMethods", "allow_methods"),
        ("allowHeaders", "allow_headers"),
        ("exposeHeaders", "expose_headers"),
    ):
        if said.get(field):
            found[name] = ",".join(said[field])
    if "maxAge" in said:
        found["max_age"] = said["maxAge"].removesuffix("s")
    if "allowCredentials" in said:
        found["allow_credentials"] = said["allowCredentials"]
    return found
