"""clients/python/examples/pure_python_producer.py, which lies in the folder that the first argument names, by force and, if the second one
says `named`, with its ring's memory by name. The other arguments are the example's."""

import os
import sys

folder, memory = sys.argv[1:3]
sys.path.insert(0, folder)
del sys.argv[1:3]
sys.dont_write_bytecode = True

import pure_python_producer as example  # noqa: E402


class Session(example.Session):
    def send(self, **message):
        if message["type"] == "open":
            message.update(memory=memory, take_over=True)
        super().send(**message)

    def receive_opened(self):
        reply, descriptors = super().receive_opened()
        if memory == "named":
            assert not descriptors, "a named ring comes without a descriptor"
            descriptors = [os.open("/dev/shm/" + reply["name"], os.O_RDWR | os.O_CLOEXEC)]
        return reply, descriptors


if memory == "named":
    example.SEALS = 0
example.Session = Session
example.main()
