"""Segments and playlists of a live stream over loopback, kept alive, by the daemon and by nginx, which has the same bytes as files."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import rig

from .bench import Bench, Section

CONNECTIONS = [64, 1000]
STREAM = """
[streams.door]
framerate = 30
segment = "2s"
window = "60s"
[[streams.door.renditions]]
name = "r"
size = "640x360"
preset = "ultrafast"
bitrate = "1M"
"""
NGINX = """
daemon off;
worker_processes auto;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    open_file_cache max=1000;
    gzip_static on;
    types {{ application/vnd.apple.mpegurl m3u8; video/mp4 mp4 m4s; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/files; }}
}}
"""


class Nginx:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder / "nginx", rig.free_port()
        self.files = self.folder / "files"
        self.files.mkdir(parents=True)
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=self.folder, port=self.port))
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
        self.process = subprocess.Popen([program, "-p", self.folder, "-c", config], stderr=subprocess.DEVNULL)
        rig.wait_for("nginx listens", 10, lambda: rig.is_listening(self.port))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def wrk(find: Callable[[], str], connections: int, seconds: int, headers: list[str]) -> float:
    """Requests a second. Every answer has to be a good one."""
    given = [word for header in headers for word in ("-H", header)]
    url = find()
    said = rig.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", *given, url]).output
    errors = re.search(r"Non-2xx.*|Socket errors.*", said)
    if errors:
        raise rig.Failed(f"{url}: {errors[0]}")
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])


def fetch(url: str, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=20) as answer:
        found: bytes = answer.read()
        return found


def run(bench: Bench) -> Section:
    section = Section(
        "Serving",
        "wrk over loopback with connections that are kept alive, on the same machine: requests a second. nginx serves the same bytes from files in the page cache, by sendfile, with its cache of open files, and "
        "playlists in gzip as files that were compressed beforehand. The daemon's stream is live meanwhile, so its playlist changes three times a second.",
        ["what", "KB", "connections", "Ringgear, requests/s", "nginx, requests/s", "ours / nginx's"],
    )
    frames = bench.frames("bgr24", (640, 360), 30)
    seconds = 1 if bench.quick else 4
    memories: list[int] = []
    with bench.daemon(STREAM) as daemon:
        daemon.feed(bench.feeder, frames, 30, ["door"])
        daemon.wait_live(1)
        time.sleep(3 if bench.quick else 20)
        nginx = Nginx(bench.folder)
        try:
            ours, theirs = f"http://127.0.0.1:{daemon.port}/door/r", f"http://127.0.0.1:{nginx.port}"
            playlist = fetch(f"{ours}/media.m3u8")
            nginx.files.joinpath("media.m3u8").write_bytes(playlist)
            coded = fetch(f"{ours}/media.m3u8", {"Accept-Encoding": "gzip"})
            nginx.files.joinpath("media.m3u8.gz").write_bytes(gzip.compress(playlist, 9))

            def segment(root: str) -> str:
                """The newest, which stays for longer than a measurement; nginx has it too, under the same name."""
                name = re.findall(rb"^(\d+\.m4s)$", fetch(f"{ours}/media.m3u8"), re.MULTILINE)[-1].decode()
                file = nginx.files / name
                if not file.exists():
                    file.write_bytes(fetch(f"{ours}/{name}"))
                return f"{root}/{name}"

            def media(root: str) -> str:
                return f"{root}/media.m3u8"

            size = len(fetch(segment(theirs)))
            kinds: list[tuple[str, int, Callable[[str], str], list[str]]] = [
                ("segment", size, segment, []),
                ("playlist", len(playlist), media, []),
                ("playlist, gzip", len(coded), media, ["Accept-Encoding: gzip"]),
            ]
            for kind, size, find, headers in kinds:
                for connections in CONNECTIONS:
                    given = (connections, seconds, headers)
                    subjects = {name: partial(wrk, partial(find, root), *given) for name, root in (("Ringgear", ours), ("nginx", theirs))}
                    found = rig.in_turn(bench.rounds, subjects, bench.tell)
                    memories.append(rig.memory(daemon.pid)["RssAnon"] + rig.media_memory(daemon.pid))
                    ratio = rig.Ratio.of(found["Ringgear"], found["nginx"])
                    section.row(kind, f"{size / 1e3:.1f}", connections, *(f"{sorted(each)[len(each) // 2]:.0f}" for each in found.values()), ratio)
                    section.goal(f"{kind}, {connections} connections: at least nginx's", str(ratio), ratio.median >= 1)
        finally:
            nginx.stop()
    grown = memories[-1] - memories[1] if len(memories) > 2 else 0
    section.goal("memory stays flat", f"{grown / 1e6:+.1f} MB of RssAnon and media from the first measurement with 1,000 connections to the last", grown < 16e6)
    section.commands["Each"] = "wrk -t1 -c CONNECTIONS -d 4s URL"
    return section
