"""extproc/mesh/manifests.py: files become manifests, or an error that says where."""

from pathlib import Path

import pytest

from extproc.mesh.manifests import MeshError, parse, read

SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: n}\nspec: {x: 2026-01-01}\n"
)


def test_documents_know_where_they_stand() -> None:
    first, second = parse(f"---\n{SERVICE}---\n{SERVICE}", "f.yaml")

    assert (first.line, second.line) == (2, 7)
    assert first.title == "Service n/a"
    assert first.spec == {"x": "2026-01-01"}


def test_lists_are_taken_apart_and_kustomizations_left_out() -> None:
    items = '{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "p"}}]}'
    kustomization = "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\n"

    assert [each.title for each in parse(items, "f.json")] == ["Pod default/p"]
    assert parse(kustomization, "kustomization.yaml") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:\n  b: [", "f.yaml:2: no YAML"),
        ("a: 1\na: 2\n", "twice"),
        ("- a\n", "no kind"),
        ("kind: Pod\nmetadata: {}\n", "Pod: metadata.name: missing"),
        ("a: &a [*a]\n", "no "),
        ("!!python/object:os.system {}\n", "no YAML"),
    ],
)
def test_what_is_no_manifest_says_so(text: str, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        parse(text, "f.yaml")


def test_folders_are_read_whole_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.yml").write_text(SERVICE)
    (tmp_path / "a.yaml").write_text(SERVICE.replace("name: a", "name: first"))
    (tmp_path / "notes.md").write_text("# no manifest")

    assert [each.name for each in read([tmp_path])] == ["first", "a"]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(MeshError, match="not UTF-8"):
        read([tmp_path])
    with pytest.raises(MeshError, match="No such file"):
        read([tmp_path / "none.yaml"])
