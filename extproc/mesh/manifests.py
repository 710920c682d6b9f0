"""Kubernetes manifests out of files: YAML documents that know where they stand."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import yaml

Tree = Any
"""Plain values, as YAML says them: `dict`, `list`, `str`, `bool`, `int`, `float` and None."""

FILE_BYTES_MAX: Final = 16 << 20
MANIFESTS_MAX: Final = 10_000
SUFFIXES: Final = frozenset((".yaml", ".yml", ".json"))
DEFAULT_NAMESPACE: Final = "default"
NOT_YET: Final = "9999-12-31T23:59:59Z"
"""The time of what no cluster has created: it will be the youngest."""

CLUSTER_WIDE: Final = frozenset(
    (
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "PersistentVolume",
    )
)
"""Kinds that lie in no namespace, as far as they are met here."""

_EMPTY: Final[Mapping[str, Any]] = {}


class MeshError(Exception):
    """A manifest can't be read or translated. Its text, one line, says where, why, and the fix."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")


class Manifest(NamedTuple):
    """One resource."""

    file: str
    line: int
    """Where its document begins in the file, from 1."""
    api_version: str
    kind: str
    namespace: str
    """Empty for what lies in none."""
    name: str
    document: Mapping[str, Any]

    @property
    def group(self) -> str:
        """The API's group, such as `networking.istio.io`; empty for Kubernetes' core."""
        return self.api_version.rpartition("/")[0]

    @property
    def spec(self) -> Mapping[str, Any]:
        """What is wanted; empty where the document has none."""
        return mapping(self.document.get("spec"))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The resource's own metadata."""
        return mapping(self.document.get("metadata"))

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels, as text."""
        return texts(self.metadata.get("labels"))

    @property
    def created(self) -> str:
        """RFC 3339, so it sorts as text; what does not say it is yet to be created."""
        return str(self.metadata.get("creationTimestamp") or NOT_YET)

    @property
    def title(self) -> str:
        """The resource as people name it: `Kind namespace/name`."""
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind} {self.name}"
        )

    def mappings(self, path: str, value: object) -> Sequence[Mapping[str, Any]]:
        """The list of mappings at `path`; none where there is nothing.

        Raises:
            MeshError: it is something else.
        """
        found = [] if value is None else value
        if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
            self.fail(path, "must be a list of mappings")
        return found

    def fail(self, path: str, why: str) -> NoReturn:
        """Raise a MeshError for the field at `path`, such as `spec.http[0].match`."""
        where = f"{self.file}:{self.line}: {self.title}: {path}"
        raise MeshError(where, why)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else _EMPTY


def sequence(value: object) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else ()


def texts(value: object) -> Mapping[str, str]:
    """A mapping of text to text, with what isn't text made into it."""
    return {str(key): str(item) for key, item in mapping(value).items()}


def read(paths: Iterable[Path]) -> tuple[Manifest, ...]:
    """Read files, and folders with all that lies below them, in the order of their names.

    Lists (`kind: List`) are taken apart. Kustomizations are left out: see `kustomization`.

    Raises:
        MeshError: a file can't be read, or says something that is no manifest.
    """
    found: list[Manifest] = []
    for path in paths:
        for file in _files(path):
            found += parse(_text(file), str(file))
            if len(found) > MANIFESTS_MAX:
                raise MeshError(str(file), f"more than {MANIFESTS_MAX} manifests")
    return tuple(found)


def parse(text: str, file: str) -> tuple[Manifest, ...]:
    """Read the manifests in `text`, which `file` holds.

    Raises:
        MeshError: this is no YAML, or a document is no manifest.
    """
    found: list[Manifest] = []
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        for node in nodes:
            loader = _Loader("")
            tree = loader.construct_document(node)
            found += _manifests(tree, file, node.start_mark.line + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise MeshError(where, f"no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise MeshError(file, f"no YAML: {type(error).__name__}") from None
    return tuple(found)


def _manifests(tree: Tree, file: str, line: int) -> Iterator[Manifest]:
    where = f"{file}:{line}"
    if tree is None:
        return
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
        raise MeshError(where, "no manifest: it has no kind")
    kind, api_version = tree["kind"], str(tree.get("apiVersion") or "")
    if kind in {"Kustomization", "Component"} and api_version.startswith(
        "kustomize.config.k8s.io/"
    ):
        return
    if kind == "List":
        for item in sequence(tree.get("items")):
            yield from _manifests(item, file, line)
        return
    metadata = mapping(tree.get("metadata"))
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise MeshError(where, f"{kind}: metadata.name: missing")
    namespace = "" if kind in CLUSTER_WIDE else str(metadata.get("namespace") or DEFAULT_NAMESPACE)
    yield Manifest(file, line, api_version, kind, namespace, name, tree)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise MeshError(str(file), f"larger than {FILE_BYTES_MAX} bytes")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise MeshError(str(file), error.strerror or "can't be read") from None
    except UnicodeDecodeError:
        raise MeshError(str(file), "not UTF-8") from None


class _Loader(yaml.SafeLoader):
    """As Kubernetes reads YAML: times stay text, and a key stands once in its mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if key != "<<" and keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
