"""What programs do most, done a few times in the daemon, which all sessions and programs are forked from.

What runs for the first time writes to memory: readers are made, Python puts what it has learned into its code. A process of a program that
does so copies each page that it writes to, which costs a guest more than the work itself. Files are read and memory is taken for it, which
the kernel counts as cached: no program runs beside it.
"""

import glob
import json
import os
import traceback

from harness.agent import volumes
from harness.agent.doers import perform
from harness.agent.performer import Performer, Place
from harness.agent.program import read_program
from harness.agent.records import Record
from harness.ops.codec import PROGRAM_FORMAT

#: What sessions load when they first need it is loaded here, for those to come.
LOADED = (glob, traceback, volumes)
#: So often Python looks at what runs before it makes it faster.
_TIMES = 8
_STEPS = (
    {"call": "open", "args": {"name": "f", "path": "a", "flags": ["rdwr", "creat"]}},
    {"call": "ftruncate", "args": {"file": "f", "length": 8192}},
    {"call": "pwrite", "args": {"file": "f", "offset": 0, "length": 5000}},
    {"call": "pwrite", "args": {"file": "f", "offset": 2001, "length": 100}},
    {"call": "pread", "args": {"file": "f", "offset": 0, "length": 8192}},
    {"call": "pwritev", "args": {"file": "f", "offset": 0, "buffers": [{"length": 9}, {"length": 100}]}},
    {"call": "preadv", "args": {"file": "f", "offset": 0, "buffers": [{"length": 9}, {"length": 100}]}},
    {"call": "lseek", "args": {"file": "f", "offset": 0}},
    {"call": "read", "args": {"file": "f", "length": 100}},
    {"call": "write", "args": {"file": "f", "length": 100}},
    {"call": "fsync", "args": {"file": "f"}},
    {"call": "fallocate", "args": {"file": "f", "offset": 0, "length": 4096}},
    {"call": "statx", "args": {"file": "f"}},
    {"call": "mmap", "args": {"name": "m", "length": 8192, "file": "f"}},
    {"call": "store", "args": {"mapping": "m", "offset": 0, "length": 100}},
    {"call": "load", "args": {"mapping": "m", "offset": 0, "length": 100}},
    {"call": "mincore", "args": {"mapping": "m"}},
    {"call": "pagemap", "args": {"mapping": "m"}},
    {"call": "msync", "args": {"mapping": "m"}},
    {"call": "madvise", "args": {"mapping": "m", "advice": "normal"}},
    {"call": "munmap", "args": {"mapping": "m"}},
    {"call": "pipe", "args": {"name": "p"}},
    {"call": "splice", "args": {"source": "f", "target": "p", "length": 100, "source_offset": 0}},
    {"call": "close", "args": {"name": "p"}},
    {"call": "unix_pair", "args": {"name": "s"}},
    {"call": "send", "args": {"socket": "s", "length": 100}},
    {"call": "recv", "args": {"socket": "s", "length": 100}},
    {"call": "close", "args": {"name": "s"}},
    {"call": "read", "args": {"file": "none", "length": 1}},
    {"call": "close", "args": {"name": "f"}},
)


def warm() -> None:
    """Do the steps, on memory and nothing that anybody sees, and leave nothing of them."""
    memory = os.memfd_create("warm", os.MFD_CLOEXEC)
    me = Performer(Place({"main": f"/proc/self/fd/{memory}"}, {}))
    for _ in range(_TIMES):
        document = json.loads(json.dumps({"format": PROGRAM_FORMAT, "steps": _STEPS}))
        for index, step in enumerate(read_program(document).steps):
            Record(index, perform(me, index, step)).packed()
    me.scratch.close()
    os.close(memory)
