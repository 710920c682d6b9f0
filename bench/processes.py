"""What the kernel says of processes. Linux only."""

import os
from pathlib import Path
from typing import Final

from bench.through_envoy import cpu_seconds

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """Return a process and all that it started, however far down."""
    found = [pid]
    for one in found:
        for file in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, file.read_text().split())
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process and all that it started; what they share counts for each."""
    return sum(_resident(one) for one in family(pid))


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE_BYTES


def family_cpu_seconds(pid: int) -> float:
    """CPU that a process and all that it started have had so far."""
    return sum(cpu_seconds(one) for one in family(pid))
