"""DestinationRules: read, merged where several name one host, and found for a host as istiod does.

Facts from istiod's `pilot/pkg/model/destination_rule.go` and `push_context.go`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.mesh import fields
from extproc.mesh.manifests import Manifest
from extproc.mesh.policy_fields import POLICY
from extproc.mesh.world import ROOT_NAMESPACE, Host, Port, Proxy, qualified

Policy = Mapping[str, Any]
"""A `trafficPolicy` whose fields were checked; durations as protobuf JSON writes them."""

_RULE: Final = fields.message(
    {
        "host": fields.name,
        "trafficPolicy": POLICY,
        "subsets": fields.listed(
            fields.message(
                {"name": fields.name, "labels": fields.labels, "trafficPolicy": POLICY},
                required=("name",),
            )
        ),
        "exportTo": fields.listed(fields.name),
        "workloadSelector": fields.refused("not translated; leave it out, or the rule"),
    },
    required=("host",),
)
_PORT_LEVEL: Final = ("connectionPool", "outlierDetection", "loadBalancer", "tls")
_ANYWHERE: Final = "*"
_HERE: Final = "."


class Subset(NamedTuple):
    """A part of a host's endpoints, by their labels."""

    name: str
    labels: Mapping[str, str]
    policy: Policy | None


class Rule(NamedTuple):
    """One rule, or several for one host that were merged; `manifest` is the first."""

    manifest: Manifest
    host: str
    policy: Policy | None
    subsets: tuple[Subset, ...]
    export_to: frozenset[str]

    @property
    def path(self) -> str:
        """Its path in the API, by which a cluster says that it followed the rule."""
        namespace, name = self.manifest.namespace, self.manifest.name
        return f"/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}"

    def is_exported_to(self, namespace: str) -> bool:
        """Whether proxies of that namespace see it, if it is not their own."""
        return not self.export_to or bool({_ANYWHERE, namespace} & self.export_to)


_Table = dict[str, list[Rule]]
"""By host. What has one host and differs in whom it is exported to is not merged."""


class DestinationRules:
    """All of them, to look up by host."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        """Read and merge them, oldest first.

        Raises:
            MeshError: a field is wrong, or is not translated.
        """
        self._local: dict[str, _Table] = {}
        self._exported: dict[str, _Table] = {}
        for manifest in manifests:
            rule, home = _read(manifest), manifest.namespace
            private = {_HERE, home}
            is_private = len(rule.export_to) == 1 and rule.export_to <= private
            if is_private or (
                home != ROOT_NAMESPACE
                and (not rule.export_to or rule.export_to & {*private, _ANYWHERE})
            ):
                _merge(self._local.setdefault(home, {}), rule)
            if not is_private:
                _merge(self._exported.setdefault(home, {}), rule)

    def find(self, host: Host, proxy: Proxy) -> Rule | None:
        """The rule for a host: of the proxy's namespace, else of the host's, else of the root."""
        local = _most_specific(self._local.get(proxy.namespace, {}), host.hostname)
        if local:
            return local[-1]
        for namespace in (host.namespace, ROOT_NAMESPACE):
            found = _most_specific(self._exported.get(namespace, {}), host.hostname)
            seen = [rule for rule in found if rule.is_exported_to(proxy.namespace)]
            if seen:
                return seen[-1]
        return None


def for_port(policy: Policy | None, port: Port) -> tuple[Policy | None, bool]:
    """The policy of a port, and whether it has one of its own: that inherits nothing."""
    for said in (policy or {}).get("portLevelSettings", ()):
        if said.get("port", {}).get("number") == port.number:
            return {key: said[key] for key in _PORT_LEVEL if key in said}, True
    return policy, False


def for_subset(policy: Policy | None, subset: Subset, port: Port) -> Policy | None:
    """What a subset says on top of its host's policy for that port.

    Settings a subset has for the port itself replace all of `connectionPool`, `outlierDetection`,
    `loadBalancer` and `tls`, those it leaves out too.
    """
    own, is_port_level = for_port(subset.policy, port)
    if own is None or policy is None:
        return policy if own is None else own
    inherited = {
        key: value
        for key, value in policy.items()
        if not (is_port_level and key in _PORT_LEVEL) and key != "portLevelSettings"
    }
    return {**inherited, **own}


def _read(manifest: Manifest) -> Rule:
    said = _RULE(manifest, "spec", manifest.spec)
    subsets: list[Subset] = []
    for at, subset in enumerate(said.get("subsets", ())):
        if subset["name"] in {each.name for each in subsets}:
            manifest.fail(f"spec.subsets[{at}].name", f"{subset['name']!r} stands here twice")
        subsets.append(
            Subset(subset["name"], subset.get("labels", {}), subset.get("trafficPolicy"))
        )
    return Rule(
        manifest,
        qualified(said["host"], manifest.namespace),
        said.get("trafficPolicy"),
        tuple(subsets),
        frozenset(said.get("exportTo", ())),
    )


def _merge(table: _Table, rule: Rule) -> None:
    """Add new subsets to older rules for the host, and the policy to those that have none."""
    rules = table.setdefault(rule.host, [])
    is_separate = True
    for at, older in enumerate(rules):
        if rule.export_to != older.export_to and not (
            older.export_to and rule.export_to > older.export_to
        ):
            is_separate = True
            continue
        is_separate = False
        known = {subset.name for subset in older.subsets}
        rules[at] = older._replace(
            subsets=older.subsets
            + tuple(subset for subset in rule.subsets if subset.name not in known),
            policy=rule.policy if older.policy is None else older.policy,
        )
    if is_separate:
        rules.append(rule)


def _most_specific(table: _Table, hostname: str) -> list[Rule]:
    """The rules of the name itself, else of the longest wildcard that covers it."""
    if hostname in table:
        return table[hostname]
    covering = (
        host
        for host in table
        if host.startswith("*") and hostname.removeprefix("*").endswith(host[1:])
    )
    longest = max(covering, key=len, default=None)
    return table[longest] if longest else []
