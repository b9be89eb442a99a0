"""A producer that opens its ring by name, feeds it for a while, and then cuts it short: cut_ring.py SOCKET BYTES

It says "fed NAME" once frames were taken, and last what the daemon said when it ended the session.
"""

import json
import mmap
import os
import socket
import struct
import sys
import time

WIDTH, HEIGHT = 320, 180
COMMITTED, TAKEN, SLOTS, SLOT_BYTES = 1024, 1152, 4096, 128
FREE, WRITING, READY = 0, 1, 2

path, cut = sys.argv[1], int(sys.argv[2])
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
lines = connection.makefile("rw")
request = {"type": "open", "protocol": 1, "stream": "cam", "format": "bgr24"}
lines.write(json.dumps({**request, "width": WIDTH, "height": HEIGHT, "memory": "named"}) + "\n")
lines.flush()
opened = json.loads(lines.readline())
if opened["type"] != "opened":
    sys.exit(str(opened))

fd = os.open("/dev/shm/" + opened["name"], os.O_RDWR)
memory = mmap.mmap(fd, opened["memory_bytes"])
# Whole words by one store each, which struct.pack_into does not promise.
words = memoryview(memory).cast("Q")


def word(offset):
    return words[offset // 8]


def store(offset, value):
    words[offset // 8] = value


def commit(number, pixels):
    """Commits frame `number` if a slot is free; without its pixels if they are gone."""
    for index in range(opened["slots"]):
        slot = SLOTS + SLOT_BYTES * index
        if word(slot) & 3 == FREE:
            store(slot, number << 2 | WRITING)
            if pixels:
                start = 8192 + index * word(56)
                memory[start : start + WIDTH * HEIGHT * 3] = bytes([number % 256]) * (WIDTH * HEIGHT * 3)
            store(slot + 8, number)
            store(slot, number << 2 | READY)
            store(COMMITTED, number)
            return number + 1
    return number


number = 1
while word(TAKEN) < 3:
    number = commit(number, True)
    time.sleep(0.01)
print("fed", opened["name"], flush=True)
os.ftruncate(fd, cut)
if cut >= 8192:
    # The words are still there, so frames without pixels can be committed.
    before = word(TAKEN)
    ended = False
    connection.setblocking(False)
    while not ended:
        number = commit(number, False)
        try:
            ended = connection.recv(1, socket.MSG_PEEK) is not None
        except BlockingIOError:
            time.sleep(0.01)
    connection.setblocking(True)
print(lines.readline().strip(), flush=True)
