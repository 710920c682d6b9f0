"""Changes to the demo's Envoy, for records that go another way than decisions."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

from extproc.demo.attachment import Tree
from extproc.demo.envoy import SERVICE_CLUSTER

RECORDS: Final = "llm-records"
"""The cluster of whoever gets the records."""

_LOGGER: Final = "llm.settle"


def records_to(port: int, *, flush_interval: str | None = None) -> Callable[[Tree], Tree]:
    """Send records to this port, and all else where it was sent before."""

    def edit(config: Tree) -> Tree:
        config = _with_records_at(config, port)
        common = _logger_of(config)["typed_config"]["common_config"]
        common["grpc_service"]["envoy_grpc"] = {"cluster_name": RECORDS}
        if flush_interval is not None:
            common["buffer_flush_interval"] = flush_interval
        return config

    return edit


def served_by(ports: Sequence[int]) -> Callable[[Tree], Tree]:
    """Let replicas at these ports decide and settle; one that can't be reached is left alone."""

    def edit(config: Tree) -> Tree:
        clusters = config["static_resources"]["clusters"]
        (service,) = (each for each in clusters if each["name"] == SERVICE_CLUSTER)
        (locality,) = service["load_assignment"]["endpoints"]
        (endpoint,) = locality["lb_endpoints"]
        locality["lb_endpoints"] = [copy.deepcopy(endpoint) for _ in ports]
        for each, port in zip(locality["lb_endpoints"], ports, strict=True):
            each["endpoint"]["address"]["socket_address"]["port_value"] = port
        service["lb_policy"] = "LEAST_REQUEST"
        # As the replicated overlay has it, but that a replica that was restarted has its turn soon.
        service["outlier_detection"] = {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_percent": 50,
        }
        return config

    return edit


def records_the_old_way(port: int) -> Callable[[Tree], Tree]:
    """Send them by the gRPC access log service, which acknowledges nothing."""

    def edit(config: Tree) -> Tree:
        config = _with_records_at(config, port)
        logger = _logger_of(config)
        flush_interval = logger["typed_config"]["common_config"]["buffer_flush_interval"]
        logger["name"] = "envoy.access_loggers.http_grpc"
        logger["typed_config"] = {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3"
            ".HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "old",
                "transport_api_version": "V3",
                "buffer_flush_interval": flush_interval,
                "grpc_service": {"envoy_grpc": {"cluster_name": RECORDS}},
                # All that there is to make it safer.
                "grpc_stream_retry_policy": {
                    "num_retries": 400,
                    "retry_back_off": {"base_interval": "0.1s", "max_interval": "10s"},
                },
            },
        }
        return config

    return edit


def _with_records_at(config: Any, port: int) -> Any:  # noqa: ANN401  # as in YAML
    clusters = config["static_resources"]["clusters"]
    (service,) = (cluster for cluster in clusters if cluster["name"] == SERVICE_CLUSTER)
    added = copy.deepcopy(service) | {"name": RECORDS, "alt_stat_name": ""}
    added["load_assignment"]["cluster_name"] = RECORDS
    endpoint = added["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = port
    clusters.append(added)
    return config


def _logger_of(config: Any) -> Any:  # noqa: ANN401  # as in YAML
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return next(logger for logger in manager["access_log"] if logger["name"] == _LOGGER)
