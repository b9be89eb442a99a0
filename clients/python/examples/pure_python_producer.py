#!/usr/bin/env python3
"""A producer in nothing but Python's standard library, written from docs/protocol.md alone.

It feeds a stream with the test pattern of docs/test-pattern.md:

    pure_python_producer.py door --size 360x200 --frames 300

For real work use the package `ringgear`: it is faster, and it can steal back a full ring's oldest
frame. That takes a compare-and-swap, which plain Python has not, so this one drops its newest frame
instead. It commits by ordered plain stores and therefore runs on x86-64 alone. Python 3.9 or later.
"""

import argparse
import fcntl
import json
import mmap
import os
import platform
import random
import signal
import socket
import sys
import time
from fractions import Fraction

PROTOCOL, LAYOUT = 1, 1
LONGEST_LINE = 65536
FREE, WRITING, READY = 0, 1, 2

# Places of 64-bit words in the memory, counted in words.
VERSION, MEMORY_BYTES, SLOTS, SLOT_HEADERS_OFFSET, SLOT_HEADER_BYTES, DATA_OFFSET = range(1, 7)
SLOT_BYTES, FRAME_BYTES, FORMAT, WIDTH, HEIGHT, PLANES, PLANE_0 = range(7, 14)
COMMITTED = 1024 // 8
SLOT_HEADERS, SLOT_HEADER = 4096 // 8, 128 // 8
FRAME_NUMBER, CAPTURED = 1, 2

BGR24_CODE = 1
TRY_AGAIN = {"stream_busy", "out_of_resources", "stopping"}
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Refused(Exception):
    """The daemon said no; `again` says whether a later try may be answered otherwise."""

    def __init__(self, reply):
        super().__init__(f"{reply.get('code')}: {reply.get('message')}")
        self.again = reply.get("code") in TRY_AGAIN


class Ended(Exception):
    """The daemon ended the session; `again` says whether to come back."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.again = code != "taken_over"


class Session:
    """One producer's connection to one stream: a socket, and a ring of slots in shared memory."""

    def __init__(self, path, stream, width, height):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.lines = b""
        self.memory = None
        try:
            self.socket.settimeout(10)
            self.socket.connect(path)
            self.send(
                type="open", protocol=PROTOCOL, stream=stream, format="bgr24",
                width=width, height=height, client="pure_python_producer/1",
            )
            reply, descriptors = self.receive_opened()
            try:
                self.map(reply, descriptors, width, height)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except BaseException:
            self.release()
            raise
        self.framerate = Fraction(reply["framerate_num"], reply["framerate_den"])
        # With a time limit, Python waits for data before it looks at MSG_DONTWAIT.
        self.socket.settimeout(None)

    def send(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive_opened(self):
        """The answer to `open`, and the descriptors that travel beside its first byte."""
        flags = socket.MSG_CMSG_CLOEXEC
        self.lines, descriptors, _, _ = socket.recv_fds(self.socket, LONGEST_LINE, 4, flags)
        try:
            if not self.lines:
                raise Ended("stopping", "the daemon closed the connection")
            reply = self.receive()
            if reply["type"] == "refused":
                raise Refused(reply)
            if reply["type"] != "opened":
                raise ValueError(f"the daemon answered open by {reply['type']!r}")
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return reply, descriptors

    def receive(self):
        """The next message."""
        while b"\n" not in self.lines:
            if len(self.lines) > LONGEST_LINE:
                raise ValueError("the daemon sent a line that is too long")
            more = self.socket.recv(LONGEST_LINE)
            if not more:
                raise Ended("stopping", "the daemon closed the connection")
            self.lines += more
        line, self.lines = self.lines.split(b"\n", 1)
        return json.loads(line)

    def map(self, reply, descriptors, width, height):
        """Maps the memory and checks every header word against what was asked for."""
        if len(descriptors) != 1:
            raise ValueError(f"{len(descriptors)} descriptors came with the session instead of one")
        memory_bytes, slots = reply["memory_bytes"], reply["slots"]
        if fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise ValueError("the memory is not sealed")
        if os.fstat(descriptors[0]).st_size != memory_bytes:
            raise ValueError("the memory has another size than the daemon says")
        self.memory = mmap.mmap(descriptors[0], memory_bytes)
        # A store into a view of native 64-bit words is one store of 8 bytes. `struct.pack_into("<Q")`
        # isn't: it writes byte by byte, and the daemon could see half a word.
        self.words = memoryview(self.memory).cast("Q")
        if self.memory[:8] != b"RINGGEAR" or self.words[VERSION] != LAYOUT:
            raise ValueError(f"the memory's layout is not version {LAYOUT}; this program is too old or too new")

        row, frame = 3 * width, 3 * width * height
        slot = (frame + 4095) // 4096 * 4096
        data = (4096 + 128 * slots + 4095) // 4096 * 4096
        expected = {
            MEMORY_BYTES: memory_bytes, SLOTS: slots, SLOT_HEADERS_OFFSET: 4096, SLOT_HEADER_BYTES: 128,
            DATA_OFFSET: data, SLOT_BYTES: slot, FRAME_BYTES: frame, FORMAT: BGR24_CODE,
            WIDTH: width, HEIGHT: height, PLANES: 1,
            PLANE_0: 0, PLANE_0 + 1: row, PLANE_0 + 2: row, PLANE_0 + 3: height,
        }
        for place, value in expected.items():
            if self.words[place] != value:
                raise ValueError(f"header word at {8 * place} is {self.words[place]}, expected {value}")
        if data + slots * slot != memory_bytes:
            raise ValueError("the memory's size does not fit its slots")
        self.slots, self.slot_bytes, self.data, self.frame_bytes = slots, slot, data, frame
        self.committed = 0

    def check(self):
        """Raises Ended when the daemon has ended the session. Cheap enough for every frame."""
        try:
            more = self.socket.recv(LONGEST_LINE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise Ended("stopping", f"the connection broke: {error}") from error
        if not more:
            raise Ended("stopping", "the daemon went away")
        self.lines += more
        while b"\n" in self.lines:
            message = self.receive()
            if message["type"] == "ended":
                raise Ended(message["code"], message["message"])
            raise ValueError(f"the daemon sent {message['type']!r} without being asked")

    def write(self, frame, number, captured):
        """Commits a frame. False when the ring is full: then the frame is dropped."""
        if len(frame) != self.frame_bytes:
            raise ValueError(f"a frame has {self.frame_bytes} bytes, not {len(frame)}")
        words = self.words
        for slot in range(self.slots):
            header = SLOT_HEADERS + SLOT_HEADER * slot
            if words[header] & 3 == FREE:
                break
        else:
            return False
        sequence = self.committed + 1
        words[header] = sequence << 2 | WRITING
        start = self.data + self.slot_bytes * slot
        self.memory[start : start + len(frame)] = frame
        words[header + FRAME_NUMBER] = number & (1 << 64) - 1
        words[header + CAPTURED] = captured
        words[header] = sequence << 2 | READY
        words[COMMITTED] = sequence
        self.committed = sequence
        return True

    def close(self):
        """Ends the session; returns what became of its frames."""
        try:
            self.socket.settimeout(10)
            self.send(type="close")
            while True:
                message = self.receive()
                if message["type"] == "closed":
                    return message
                if message["type"] == "ended":
                    raise Ended(message["code"], message["message"])
        finally:
            self.release()

    def release(self):
        self.socket.close()
        if self.memory is not None:
            self.words.release()
            self.memory.close()
            self.memory = None


class Pattern:
    """The test pattern: a gradient that moves, below three rows of bars."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        ramp = b"".join(bytes((x * 255 // width, 128, 255 - x * 255 // width)) for x in range(width))
        self.ramp = ramp + ramp
        edges = [column * width // 36 for column in range(37)]
        self.cells = [edges[c + 1] - edges[c] for c in range(36)]
        self.rows = [(r + 1) * height // 20 - r * height // 20 for r in range(3)]

    def paint(self, number, captured_ms):
        data = (number % 2**32).to_bytes(4, "big") + captured_ms.to_bytes(6, "big")
        bits = int.from_bytes(data + crc16(data).to_bytes(2, "big"), "big")
        lines = []
        for row in range(3):
            word = bits >> 32 * (2 - row) & 0xFFFFFFFF
            cells = [1, 0, *(word >> 31 - i & 1 for i in range(32)), 1, 0]
            line = b"".join((b"\xff" if on else b"\0") * 3 * wide for on, wide in zip(cells, self.cells))
            lines.append(line * self.rows[row])
        shift = 3 * (2 * number % self.width)
        moving = self.ramp[shift : shift + 3 * self.width]
        return b"".join(lines) + moving * (self.height - sum(self.rows))


def crc16(data):
    """CRC-16/CCITT-FALSE."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def arguments():
    def size(text):
        width, height = map(int, text.split("x"))
        if not (72 <= width <= 16384 and 40 <= height <= 16384):
            raise ValueError("too small for the bars, or too large")
        return width, height

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stream")
    parser.add_argument("--socket", default=os.environ.get("RINGGEAR_SOCKET", "/run/ringgear/control.sock"))
    parser.add_argument("--size", type=size, default=(360, 200), metavar="WxH")
    parser.add_argument("--framerate", type=Fraction, help="the stream's, unless given")
    parser.add_argument("--frames", type=int, help="end after so many; without it, run until interrupted")
    return parser.parse_args()


def feed(options, stop):
    """Opens sessions and feeds them until the frames are out; prints what became of them."""
    pattern = Pattern(*options.size)
    session, opened, pause, retry_at, dropped, number = None, 0.0, 0.1, 0.0, 0, 0
    due, framerate = time.monotonic(), options.framerate
    while not stop and (options.frames is None or number < options.frames):
        if session is None and time.monotonic() >= retry_at:
            try:
                session = Session(options.socket, options.stream, *options.size)
                opened, framerate = time.monotonic(), options.framerate or session.framerate
                print(f"session open: {session.slots} slots", file=sys.stderr)
            except (Refused, Ended, OSError) as error:
                # The first connection has to work at once, or a mistake would stay unseen.
                if number == 0 or not getattr(error, "again", True):
                    raise
                retry_at = time.monotonic() + pause * random.uniform(0.75, 1.25)
                pause = min(2 * pause, 1.0)
        # A frame is counted whether or not there is a session to take it.
        captured = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        frame = pattern.paint(number, time.time_ns() // 1_000_000)
        try:
            if session is not None:
                session.check()
            if session is None or not session.write(frame, number, captured):
                dropped += 1
        except Ended as error:
            session.release()
            session, dropped = None, dropped + 1
            # Only a session that lasted was a good one.
            pause = 0.1 if time.monotonic() - opened >= 2 else min(2 * pause, 1.0)
            retry_at = time.monotonic() + pause * random.uniform(0.75, 1.25)
            print(f"session over: {error}", file=sys.stderr)
            if not error.again:
                raise
        number += 1
        due = max(due + 1 / framerate, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))
    closed = session.close() if session else None
    print(json.dumps({"frames": number, "dropped": dropped, "last_session": closed}))


def main():
    if platform.machine() != "x86_64":
        sys.exit("pure_python_producer: its plain stores are ordered on x86-64 alone; use the package ringgear here")
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    try:
        feed(arguments(), stop)
    except (Refused, Ended, OSError, ValueError) as error:
        sys.exit(f"pure_python_producer: {error}")


if __name__ == "__main__":
    main()
