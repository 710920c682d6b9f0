"""h2spec, a suite that is not ours: https://github.com/summerwind/h2spec.

`make h2spec` builds it, which needs Go, and runs this. It is no part of `make test`.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from extproc.demo.process import child

BINARY = os.environ.get("LLM_EXTPROC_H2SPEC", ".h2spec/h2spec")
OBSOLETE = {
    "Sends HEADERS frame that depend on itself",
    "Sends PRIORITY frame that depend on itself",
}
"""RFC 7540 §5.3.1: RFC 9113 §5.3 has dropped priorities, and what depends on what with them."""


def test_all_of_h2spec_that_rfc_9113_has_kept(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with child(
        "server", [sys.executable, "-m", "tests.h2.h2spec_server"], directory=tmp_path
    ) as server:
        port = server.wait_for_line("listening on ").rpartition(":")[2]
        command = [BINARY, "-h", "127.0.0.1", "-p", port, "-o", "3", "-j", str(report)]
        subprocess.run(command, check=False, capture_output=True, timeout=300)
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314  # h2spec's own

    failed = {case.get("classname") for case in cases if case.find("error") is not None}
    assert failed == OBSOLETE
    assert len(cases) > 140
