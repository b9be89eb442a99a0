#!/usr/bin/env python3
"""All comparisons in one run: Ringgear beside FFmpeg alone, StreamGear and nginx, what its hot paths cost in instructions, and
docs/performance.md, written from what was found.

    python3 benches/bench.py [--quick] [--only flat_out,serving] [--accept]

It runs as an ordinary user, as the service does: root hands over to `nobody`, or to the user that RINGGEAR_BENCH_USER names. A quick run, and one of some
comparisons alone, print their tables and leave docs/performance.md as it is. Exits with 1 when a hot path has become dearer than
benches/hot_paths.json allows; --accept writes that file anew instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rig
from suite.bench import Bench, Section

COMPARISONS = ["flat_out", "own_cost", "whole_system", "ladder", "many_streams", "memory", "serving", "start", "at_rest", "hot_paths", "streamgear"]
REPORT = rig.ROOT / "docs" / "performance.md"
# What stands above it in the report is written by hand.
MARK = "<!-- What follows is written by `make bench`. -->"


def first_line(*command: str) -> str:
    """What a program says of its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "missing"
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].strip() if lines else "unknown"


def machine() -> list[str]:
    """Of what a reader has to know to believe the figures."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    revision = first_line("git", "-c", "safe.directory=*", "-C", str(rig.ROOT), "describe", "--always", "--dirty")
    return [
        f"- {os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}; run as `{pwd.getpwuid(os.geteuid()).pw_name}`",
        f"- Ringgear {revision}; {first_line('ffmpeg', '-version').partition(' Copyright')[0]}; {first_line('/usr/sbin/nginx', '-v')}; {first_line('wrk', '-v').partition(' Copyright')[0]}",
        f"- {time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f} at the beginning",
    ]


def measure(asked: argparse.Namespace) -> list[Section]:
    """All comparisons that are asked for, in turn."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sections = []
    with tempfile.TemporaryDirectory(prefix="ringgear-bench-", dir=asked.folder, ignore_cleanup_errors=True) as folder:
        bench = Bench(asked.ringgear, asked.feeder, asked.hot_paths, Path(folder), asked.folder, asked.wheels, asked.quick, asked.accept)
        for name in asked.only:
            began = time.monotonic()
            print(f"{name}...", file=sys.stderr, flush=True)
            try:
                section = importlib.import_module(f"suite.{name}").run(bench)
            except rig.Failed as error:
                section = Section(name, f"Not measured: {error}", [""])
                section.goal(name, "it failed", False)
            sections.append(section)
            print(f"{section.markdown()}\n({time.monotonic() - began:.0f} s)\n", flush=True)
    return sections


def report(sections: list[Section], about: list[str], took: float) -> str:
    """The part of docs/performance.md that is measured."""
    goals = [(section, goal) for section in sections for goal in section.goals]
    lines = [MARK, "", f"Measured by `make bench` in {took / 60:.0f} minutes, all subjects of a comparison in turn, round after round, on", "", *about, "", "## The goals", ""]
    lines += ["| | goal | measured | |", "|---|---|---|---|"]
    lines += [f"| {section.title} | {goal.wanted} | {goal.measured} | {goal.verdict} |" for section, goal in goals]
    return "\n".join(lines) + "\n\n" + "\n".join(section.markdown() for section in sections)


def as_user(user: str, asked: argparse.Namespace) -> int:
    """Runs this again as `user`, who gets a folder to work in, and takes over what it has written for files that are root's."""
    account = pwd.getpwnam(user)
    folder = rig.TARGET / "bench" / f"suite-{user}"
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, account.pw_uid, account.pw_gid)
    become = ["setpriv", f"--reuid={user}", f"--regid={account.pw_gid}", "--clear-groups", "--no-new-privs", "--"]
    pythons = [sys.executable, "/usr/bin/python3"]
    # Started by who still was root a moment before, any would run: so each is to start itself again.
    again = "import subprocess, sys, venv; subprocess.run([sys.executable, '-c', 'import venv'], check=True)"
    tries = (subprocess.run([*become, python, "-c", again], cwd="/", capture_output=True, check=False).returncode for python in pythons)
    python = next((python for python, status in zip(pythons, tries) if status == 0), None)
    if python is None:
        sys.exit(f"{user} can run none of {pythons}: run this as an ordinary user, or name one in RINGGEAR_BENCH_USER")
    results = folder / "results.json"
    results.unlink(missing_ok=True)
    line = [*become, python, "-B", __file__, *sys.argv[1:], "--results", str(results), "--folder", str(folder)]
    environment = {**os.environ, "HOME": str(folder), "USER": user, "XDG_CACHE_HOME": str(folder / "cache")}
    status = subprocess.run(line, cwd=folder, env=environment, check=False).returncode
    if results.exists():
        write(json.loads(results.read_text()), asked)
    return status


def write(told: dict[str, object], asked: argparse.Namespace) -> None:
    """Writes the files of the repository that follow from a run."""
    counts = told.get("counts")
    if asked.accept and counts:
        path = rig.ROOT / "benches" / "hot_paths.json"
        path.write_text(json.dumps(counts, indent=2) + "\n")
        print(f"wrote {path}")
    text = told.get("report")
    if text and not asked.quick and asked.only == COMPARISONS:
        by_hand = REPORT.read_text().partition(MARK)[0] if REPORT.exists() else "# Performance\n\n"
        REPORT.write_text(by_hand + str(text))
        print(f"wrote {REPORT}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    release = rig.TARGET / "release"
    parser.add_argument("--ringgear", type=Path, default=release / "ringgear")
    parser.add_argument("--feeder", type=Path, default=release / "examples" / "feeder")
    parser.add_argument("--hot-paths", type=Path, default=release / "examples" / "hot_paths")
    parser.add_argument("--wheels", type=Path, default=rig.TARGET / "bench" / "wheels", help="where `pip wheel` has put the Python package")
    parser.add_argument("--quick", action="store_true", help="one round of little work, in three minutes")
    parser.add_argument("--only", type=lambda text: text.split(","), default=COMPARISONS, help=f"some of {','.join(COMPARISONS)}")
    parser.add_argument("--accept", action="store_true", help="take the instructions that hot paths take now as those that they may take")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    unknown = set(asked.only) - set(COMPARISONS)
    if unknown:
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    for name in ("ringgear", "feeder", "hot_paths", "wheels"):
        setattr(asked, name, getattr(asked, name).resolve())
    if os.geteuid() == 0 and asked.results is None:
        return as_user(os.environ.get("RINGGEAR_BENCH_USER", "nobody"), asked)
    if asked.folder is None:
        asked.folder = rig.TARGET.resolve() / "bench" / "suite"
        asked.folder.mkdir(parents=True, exist_ok=True)
    needed = [name for name in ("ffmpeg", "ffprobe", "nginx", "wrk", "valgrind") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if needed:
        sys.exit(f"missing: {', '.join(needed)}; `make bench` installs them")
    about, began = machine(), time.monotonic()
    sections = measure(asked)
    took = time.monotonic() - began
    told: dict[str, object] = {"report": report(sections, about, took), "counts": next((section.counts for section in sections if section.counts), None)}
    if asked.results is not None:
        asked.results.write_text(json.dumps(told))
    else:
        write(told, asked)
    goals = [goal for section in sections for goal in section.goals]
    print(f"{sum(goal.met is True for goal in goals)} of {len(goals)} goals met, in {took:.0f} s")
    return int(any(section.regressed for section in sections) and not asked.accept)


if __name__ == "__main__":
    sys.exit(main())
