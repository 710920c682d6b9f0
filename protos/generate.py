"""Generate Python from our .proto files: `python -m protos.generate`.

The code is committed, so that nobody needs grpcio-tools to run the service; a test sees to it that
it is fresh.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grpc_tools import protoc

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "protos"
PROTO: Final = "llm_extproc/budgets/v1/budgets.proto"
GENERATED: Final = ROOT / "extproc" / "budgets_api"
NAMES: Final = ("budgets_pb2.py", "budgets_pb2.pyi", "budgets_pb2_grpc.py")

_IMPORT: Final = "from llm_extproc.budgets.v1 import budgets_pb2"
_OUR_IMPORT: Final = "from extproc.budgets_api import budgets_pb2"


def generated() -> dict[str, str]:
    """The files by name, as grpcio-tools makes them.

    protoc takes a file's folder for its package: we keep ours within `extproc`.

    Raises:
        RuntimeError: the .proto file is wrong; protoc has said how.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        code = protoc.main(["protoc", f"-I{FOLDER}", *options, str(FOLDER / PROTO)])
        if code:
            msg = f"protoc failed with {code}"
            raise RuntimeError(msg)
        made = (Path(folder) / PROTO).parent
        return {name: (made / name).read_text().replace(_IMPORT, _OUR_IMPORT) for name in NAMES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files anew; with `--check`, only say whether that would change any."""
    is_check = "--check" in (sys.argv[1:] if arguments is None else arguments)
    stale = [
        name
        for name, text in generated().items()
        if not (GENERATED / name).exists() or (GENERATED / name).read_text() != text
    ]
    if is_check:
        sys.stderr.writelines(f"{name} is stale: run python -m protos.generate\n" for name in stale)
        return 1 if stale else 0
    for name, text in generated().items():
        (GENERATED / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
