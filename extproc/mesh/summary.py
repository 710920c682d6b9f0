"""A rendering for people: where requests go, through which filters, and what istiod drops."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from extproc.mesh.listeners import MANAGER
from extproc.mesh.render import LEFT_OUT, Rendered

_HEAD: Final = ("match", "where to", "timeout", "retries")
_WIDTH_MAX: Final = 60


def summary(rendered: Rendered) -> str:
    """Say it in lines."""
    return "\n".join(_lines(rendered))


def _lines(rendered: Rendered) -> Iterator[str]:
    for listener in rendered.listeners:
        yield f"listener {listener['name']}: {' > '.join(_filters(listener))}"
    for configuration in rendered.routes:
        for host in configuration.get("virtual_hosts", ()):
            yield ""
            domains = [each for each in host["domains"] if not each.endswith(".")]
            yield f"routes {configuration['name']}: {', '.join(domains)}"
            rows = [_row(route) for route in host.get("routes", ())]
            yield from _table([_HEAD, *rows] if rows else [("(none)", "", "", "")])
    yield ""
    yield f"{len(rendered.clusters)} clusters, {_endpoints(rendered)} endpoints"
    if rendered.notes:
        yield ""
        yield "dropped by istiod without a word:"
        yield from (f"  {note}" for note in rendered.notes)
    if rendered.unseen:
        yield ""
        yield "patches of what is left out, if of anything:"
        yield from (f"  {patch}" for patch in rendered.unseen)
    yield ""
    yield "left out of this rendering on purpose:"
    yield from (f"  {what}: {why}" for what, why in LEFT_OUT)


def _filters(listener: Mapping[str, Any]) -> list[str]:
    found = []
    for chain in listener.get("filter_chains", ()):
        for each in chain["filters"]:
            if each["name"] == MANAGER:
                manager = each["typed_config"]
                early = manager.get("early_header_mutation_extensions", ())
                found += [one["name"] for one in (*early, *manager.get("http_filters", ()))]
            else:
                found.append(each["name"])
    return [name.removeprefix("envoy.filters.http.") for name in found]


def _row(route: Mapping[str, Any]) -> tuple[str, str, str, str]:
    action = route.get("route", {})
    retry = action.get("retry_policy")
    retries = "none"
    if retry:
        each = f", {retry['per_try_timeout']} each" if "per_try_timeout" in retry else ""
        retries = f"{retry.get('num_retries', 1)} on {_retried(retry)}{each}"
    timeout = action.get("timeout", "15s") if action else ""
    match = " and ".join(_matches(route["match"]))
    return match, _where(route), "none" if timeout == "0s" else timeout, retries if action else ""


def _retried(retry: Mapping[str, Any]) -> str:
    codes = [str(code) for code in retry.get("retriable_status_codes", ())]
    said = [one for one in retry.get("retry_on", "").split(",") if one]
    return ",".join([one for one in said if one != "retriable-status-codes" or not codes] + codes)


def _matches(match: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("prefix", "path", "path_separated_prefix"):
        if kind in match:
            yield match[kind] + ("" if kind == "path" else "*")
    if "safe_regex" in match:
        yield f"~{match['safe_regex']['regex']}"
    for kind in ("headers", "query_parameters"):
        for each in match.get(kind, ()):
            value = each.get("string_match")
            said = " ".join(map(str, _values(value))) if value else "*"
            unlike = "not " if each.get("invert_match") else ""
            yield f"{unlike}{'?' if kind != 'headers' else ''}{each['name']}={said}"


def _values(tree: object) -> Iterator[object]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _values(value)
    else:
        yield tree


def _where(route: Mapping[str, Any]) -> str:
    action = route.get("route", {})
    mirrors = [
        f"mirrored to {_short(each['cluster'])}"
        for each in action.get("request_mirror_policies", ())
    ]
    if "weighted_clusters" in action:
        shares = action["weighted_clusters"]["clusters"]
        found = [f"{each.get('weight', 0)} {_short(each['name'])}" for each in shares]
    elif action:
        found = [_short(action.get("cluster", "?"))]
    else:
        found = ["a redirect" if "redirect" in route else "a direct answer"]
    return ", ".join([*found, *mirrors])


def _short(cluster: str) -> str:
    """`outbound|8080|canary|llm-router.n.svc.cluster.local` as `llm-router/canary`."""
    if not cluster.startswith("outbound|"):
        return cluster
    _, _, subset, host = cluster.split("|")
    name = host.removesuffix(".svc.cluster.local")
    return f"{name}/{subset}" if subset else name


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [min(_WIDTH_MAX, max(len(row[at]) for row in rows)) for at in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield ("  " + "  ".join(cells)).rstrip()


def _endpoints(rendered: Rendered) -> int:
    return sum(
        len(group.get("lb_endpoints", ()))
        for each in rendered.endpoints
        for group in each.get("endpoints", ())
    )
