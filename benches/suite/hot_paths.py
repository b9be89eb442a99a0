"""Instructions of the paths that every frame, sample, part or viewer takes, beside what they may take: a guard that the machine's load doesn't
move."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import rig

from .bench import Bench, Section

# What each may take, by name.
ALLOWED = Path(__file__).resolve().parent.parent / "hot_paths.json"
# Beyond it, or as far below, the figure is to be accepted anew. Compilers and C libraries differ by less.
TOLERANCE = 0.03
# How often each is done for a count.
TIMES = 10


def counted(bench: Bench, path: str, tool: list[str], words: str) -> float:
    """What valgrind counts of one time: the difference of two runs, of which one does it more often."""

    def of(times: int) -> int:
        said = rig.run(["valgrind", *tool, bench.hot_paths, path, str(times)], bench.folder).output
        found = re.search(words, said)
        if found is None:
            raise rig.Failed(f"valgrind has counted nothing of {path}: {said[-500:]}")
        return int(found[1].replace(",", ""))

    return (of(1 + TIMES) - of(1)) / TIMES


def instructions(bench: Bench, path: str) -> int:
    return round(counted(bench, path, ["--tool=callgrind", "--callgrind-out-file=/dev/null"], r"Collected : (\d+)"))


def allocations(bench: Bench, path: str) -> float:
    """How often it asks the heap for memory."""
    return counted(bench, path, ["--leak-check=no"], r"total heap usage: ([\d,]+) allocs")


def run(bench: Bench) -> Section:
    section = Section(
        "Instructions of the hot paths",
        f"By callgrind, for one time each after a few others; and how often each asks the heap for memory. A path that takes {100 * TOLERANCE:.0f} % more than `benches/hot_paths.json` allows makes `make bench` fail; `make bench ACCEPT=1` writes that file anew.",
        ["path", "instructions", "allowed", "of that", "allocations"],
    )
    allowed: dict[str, int] = json.loads(ALLOWED.read_text()) if ALLOWED.exists() else {}
    paths = rig.run([bench.hot_paths]).output.split()
    # Beside each other, for load doesn't move what is counted.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        counts = threads.map(partial(instructions, bench), paths)
        asked = dict(zip(paths, threads.map(partial(allocations, bench), paths)))
    for path, count in zip(paths, counts):
        section.counts[path] = count
        may = allowed.get(path)
        of_that = count / may if may else float("nan")
        section.row(path, f"{count:,}", f"{may:,}" if may else "", f"{of_that:.3f}" if may else "", f"{asked[path]:.1f}")
        if not of_that <= 1 + TOLERANCE and not bench.accept:
            section.regressed = True
            section.goal(f"{path}: no dearer than it was", f"{of_that:.3f} times", False)
        elif of_that < 1 - TOLERANCE and not bench.accept:
            bench.tell(f"{path} has become cheaper: take that with --accept")
    frames = max(each for path, each in asked.items() if path.startswith("frame_"))
    section.goal("a frame asks the heap for nothing", f"{frames:.1f} times", frames == 0)
    if not section.regressed:
        section.goal("no path dearer than it was", f"all within {100 * TOLERANCE:.0f} %", True)
    return section
