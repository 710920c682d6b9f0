"""Finding the filter's settings among manifests, and the rule about those that are unsound."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from extproc.config.loader import ConfigError, Problem, load
from extproc.config.settings import Settings
from extproc.mesh.lint.finding import Hit, Rule
from extproc.mesh.lint.scene import Scene
from extproc.mesh.manifests import Manifest, texts

CONFIG_MAP: Final = "llm-policy"
_SUFFIXES: Final = (".yaml", ".yml")


class Said(NamedTuple):
    """Settings in a ConfigMap, or what is wrong with them."""

    manifest: Manifest
    path: str
    settings: Settings | None
    problems: tuple[str, ...]


def settings_in(manifests: Sequence[Manifest]) -> Iterator[Said]:
    """What the ConfigMaps of that name say."""
    for manifest in manifests:
        if manifest.kind != "ConfigMap" or manifest.group or manifest.name != CONFIG_MAP:
            continue
        for key, text in texts(manifest.document.get("data")).items():
            if key.endswith(_SUFFIXES):
                yield _read(manifest, f"data.{key}", text)


def read_settings(text: str) -> Settings:
    """Read settings whose files of keys are elsewhere.

    Raises:
        ConfigError: they are wrong.
    """
    return load(text, read_file=lambda _: "{}\n").settings


def settings_from(path: Path) -> Settings:
    """Read a file of settings. The files of keys that it names need not be there.

    Raises:
        ConfigError: they are wrong, or can't be read.
    """
    try:
        return read_settings(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError([Problem(str(path), f"can't be read: {why}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), "not UTF-8")]) from None


def _read(manifest: Manifest, path: str, text: str) -> Said:
    try:
        return Said(manifest, path, read_settings(text), ())
    except ConfigError as error:
        return Said(manifest, path, None, tuple(map(str, error.problems)))


def _unsound(scene: Scene) -> Iterator[Hit]:
    for said in settings_in(scene.manifests):
        for problem in said.problems:
            yield Hit(said.manifest, said.path, problem)


RULES: Final = (
    Rule(
        "settings-unsound",
        f"Settings in the ConfigMap `{CONFIG_MAP}` that the service would refuse.",
        "a new Pod does not start with them, and a running one keeps its old ones",
        "see docs/settings.md; `llm-extproc check` says the same",
        _unsound,
    ),
)
