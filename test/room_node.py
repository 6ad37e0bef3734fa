"""The real node with the room for a network, a process of its own: `python room_node.py FILE --ros-args ...`

FILE says what the device suffers from at the time, one trouble a line, with a number where one is meant:
    encode_memory, encode_raises       every encode fails
    encode_memory_once                 one encode fails, then the line has no effect until it is written anew
    decode_memory 200, decode_raises   decodes of more than so many queries fail; all of them
    decode_nonsense                    answers are not finite
    slow 0.05                          seconds that a decode takes longer
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from room import Room

from d4rt_ros.node import run as node_run
from d4rt_ros.node.node import D4RTNode

FRAMES = 8


class Device:
    """Encodes any window to the room at its stamps, with the window's own pictures."""

    def __init__(self, troubles: Path):
        self.config, self.device, self.precision = (
            SimpleNamespace(frames=FRAMES),
            torch.device("cpu"),
            torch.float32,
        )
        self._troubles, self._spent = troubles, 0

    def parameters(self):
        return iter(())

    def trouble(self, name):
        """The trouble's number if the device suffers from it now (1 without a number), else 0."""
        try:
            lines = [line.split() for line in self._troubles.read_text().splitlines()]
        except FileNotFoundError:
            return 0.0
        return next((float(rest[0]) if rest else 1.0 for word, *rest in lines if word == name), 0.0)

    def encode(self, video, stamps):
        if self.trouble("encode_memory"):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.trouble("encode_memory_once") and self._spent != self._troubles.stat().st_mtime_ns:
            self._spent = self._troubles.stat().st_mtime_ns
            raise MemoryError
        if self.trouble("encode_raises"):
            raise RuntimeError("device-side assert triggered")
        room = TroubledRoom(tuple(stamps))
        room.frames, room.image_size, room.encoder = video, tuple(video.shape[-2:]), self
        return room


class TroubledRoom(Room):
    """The room as a suffering device sees it."""

    encoder: Device

    def decode(self, queries):
        limit = self.encoder.trouble("decode_memory")
        if limit and len(queries.u) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.encoder.trouble("decode_raises"):
            raise RuntimeError("device-side assert triggered")
        time.sleep(self.encoder.trouble("slow"))
        answers = super().decode(queries)
        self.decoded.clear()  # its list of requests would look like a leak
        if self.encoder.trouble("decode_nonsense"):
            for name in ("xyz", "uv", "displacement", "normal"):
                getattr(answers, name)[::2] = float("nan")
                getattr(answers, name)[1::2] = float("inf")
        return answers


if __name__ == "__main__":
    torch.set_num_threads(1)
    device = Device(Path(sys.argv[1]))
    node_run.D4RTNode = lambda: D4RTNode(lambda values: device)
    sys.exit(node_run.run([sys.argv[0], *sys.argv[2:]]))
