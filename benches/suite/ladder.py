"""What scaling a ladder costs inside FFmpeg, by how it is done, and how good the small pictures are: each is scaled up again and compared with
what it was made of."""

from __future__ import annotations

import re
import statistics
from functools import partial

import rig

from .bench import Bench, Section

SIZE = (1920, 1080)
RUNGS = [(1280, 720), (854, 480), (640, 360)]
# Fine detail without noise, which any scaling would have to throw away.
SCENE = "mandelbrot=size={width}x{height}:rate=30:start_scale=0.3,format=yuv420p"
USUAL = "bicubic, each from the source"
OURS = "bicubic, each from the one above"


def each_from_the_source(flags: str) -> str:
    graph = f"[0:v]split={len(RUNGS)}" + "".join(f"[s{index}]" for index in range(len(RUNGS)))
    for index, (width, height) in enumerate(RUNGS):
        graph += f";[s{index}]scale={width}:{height}:flags={flags}[o{index}]"
    return graph


def each_from_the_one_above(flags: str) -> str:
    links, above = [], "0:v"
    for index, (width, height) in enumerate(RUNGS):
        scaled = f"[{above}]scale={width}:{height}:flags={flags}"
        last = index == len(RUNGS) - 1
        links.append(f"{scaled}[o{index}]" if last else f"{scaled},split=2[o{index}][n{index}]")
        above = f"n{index}"
    return ";".join(links)


WAYS = {
    USUAL: each_from_the_source("bicubic"),
    OURS: each_from_the_one_above("bicubic"),
    "bilinear, each from the source": each_from_the_source("bilinear"),
    "bilinear, each from the one above": each_from_the_one_above("bilinear"),
    "fast_bilinear, each from the source": each_from_the_source("fast_bilinear"),
    "area, each from the source": each_from_the_source("area"),
    "area, each from the one above": each_from_the_one_above("area"),
}


def line(frames: rig.Frames, graph: str) -> list[str]:
    return ["ffmpeg", "-v", "info", "-f", "rawvideo", "-pix_fmt", frames.format, "-s", frames.size_text, "-i", str(frames.path), "-filter_complex", graph]


def cost(frames: rig.Frames, graph: str) -> float:
    """Seconds of the processor a frame, for reading and scaling alone."""
    outputs = [word for index in range(len(RUNGS)) for word in ("-map", f"[o{index}]", "-c:v", "wrapped_avframe", "-f", "null", "-")]
    return rig.run([*line(frames, graph), *outputs]).cpu / frames.count


def quality(frames: rig.Frames, graph: str) -> list[float]:
    """Each rung's PSNR in dB, luma."""
    width, height = frames.size
    up = f"scale={width}:{height}:flags=bicubic+accurate_rnd"
    graph += f";[1:v]split={len(RUNGS)}" + "".join(f"[r{index}]" for index in range(len(RUNGS)))
    for index in range(len(RUNGS)):
        graph += f";[o{index}]{up}[u{index}];[u{index}][r{index}]psnr[p{index}]"
    words = line(frames, graph)
    words[words.index("-filter_complex") : words.index("-filter_complex")] = line(frames, "")[3:-2]
    outputs = [word for index in range(len(RUNGS)) for word in ("-map", f"[p{index}]", "-f", "null", "-")]
    said = rig.run([*words, *outputs]).output
    found = {int(number): float(y) for number, y in re.findall(r"Parsed_psnr_(\d+) .*?PSNR y:([\d.]+)", said)}
    return [found[number] for number in sorted(found)]


def run(bench: Bench) -> Section:
    section = Section(
        "Scaling a ladder",
        "1080p I420 into " + ", ".join(f"{width}x{height}" for width, height in RUNGS) + ", reading and scaling alone, by FFmpeg's scaler: what a frame takes of the processors, "
        "and the luma's PSNR after scaling up again. The daemon scales as the second row does.",
        ["way", "ms a frame", "of the first", *(f"{height}p, dB" for _, height in RUNGS)],
    )
    frames = rig.make_frames(bench.folder / "frames", "yuv420p", SIZE, 15 if bench.quick else 90, SCENE)
    costs = rig.in_turn(bench.rounds, {name: partial(cost, frames, graph) for name, graph in WAYS.items()}, bench.tell)
    few = rig.make_frames(bench.folder / "frames", "yuv420p", SIZE, 10, SCENE)
    qualities = {name: quality(few, graph) for name, graph in WAYS.items()}
    for name, each in costs.items():
        ratio = rig.Ratio.of(each, costs[USUAL])
        section.row(name, f"{1e3 * statistics.median(each):.2f}", ratio, *(f"{decibels:.2f}" for decibels in qualities[name]))
    ratio = rig.Ratio.of(costs[OURS], costs[USUAL])
    loss = max(0.0, *(usual - own for own, usual in zip(qualities[OURS], qualities[USUAL])))
    section.goal("cheaper than bicubic from the source, and within 0.2 dB of it", f"{ratio} of its cost, {loss:.2f} dB less at most", ratio.median < 1 and loss <= 0.2)
    return section
