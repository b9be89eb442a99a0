"""What every comparison is given, and what it gives back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import rig


@dataclass
class Bench:
    """How a run is made."""

    ringgear: Path
    feeder: Path
    hot_paths: Path
    # Of this run, writable.
    folder: Path
    # Kept from run to run: what was installed from PyPI.
    peers: Path
    # Where this repository's Python package lies as a wheel.
    wheels: Path
    quick: bool
    # Whether what hot paths take now is what they may take.
    accept: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    def frames(self, format: str, size: tuple[int, int], count: int) -> rig.Frames:
        return rig.make_frames(self.folder / "frames", format, size, count)

    def daemon(self, streams: str) -> rig.Daemon:
        return rig.Daemon(self.ringgear, streams)

    def tell(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass
class Goal:
    """What was to be reached, what was, and whether that is enough; none where it could not be measured."""

    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "not met", None: "not measured"}[self.met]


@dataclass
class Section:
    """What a comparison has found: a table, and its goals."""

    title: str
    text: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    # What was run, by name.
    commands: dict[str, str] = field(default_factory=dict)
    # Instructions of hot paths, and whether any takes more than it may.
    counts: dict[str, int] = field(default_factory=dict)
    regressed: bool = False

    def row(self, *cells: object) -> None:
        self.rows.append([f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells])

    def goal(self, wanted: str, measured: str, met: bool | None) -> None:
        self.goals.append(Goal(wanted, measured, met))

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.text, ""]
        lines += ["| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.goals:
            lines += ["", "| goal | measured | |", "|---|---|---|"]
            lines += [f"| {goal.wanted} | {goal.measured} | {goal.verdict} |" for goal in self.goals]
        if self.commands:
            lines += ["", *(f"{name}:\n\n    {command}\n" for name, command in self.commands.items())]
        return "\n".join(lines).rstrip() + "\n"
