"""What a daemon costs while it has nothing to do, and how large the program is."""

from __future__ import annotations

import time
from pathlib import Path

import rig

from .bench import Bench, Section

MB = 1_000_000


def wake_ups(pid: int) -> int:
    """How often threads of a process have waited for something until now, which is how often they were woken."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


def run(bench: Bench) -> Section:
    section = Section(
        "At rest",
        "A daemon without a stream, some seconds after its start: its resident memory (the program's own pages in the page cache included), how often any of its threads is woken, and the program's size.",
        ["what", "measured"],
    )
    with bench.daemon("") as daemon:
        # Threads that have helped at the start go after ten seconds.
        time.sleep(12)
        before, began = wake_ups(daemon.pid), time.monotonic()
        time.sleep(5 if bench.quick else 30)
        woken = (wake_ups(daemon.pid) - before) / (time.monotonic() - began)
        resident = rig.memory(daemon.pid)["VmRSS"] / MB
    size = bench.ringgear.stat().st_size / MB
    for what, found, most, unit in (
        ("resident memory", resident, 10, "MB"),
        ("wake-ups", woken, 1, "a second"),
        ("program", size, 25, "MB"),
    ):
        section.row(what, f"{found:.2f} {unit}")
        section.goal(f"{what}: at most {most} {unit}", f"{found:.2f} {unit}", found <= most)
    return section
