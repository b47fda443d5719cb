"""A process that makes a private folder, starts something in it, says where and with which processes, and never cleans up.

Usage: owner.py die|end.
"""

import os
import signal
import sys

import psutil

from harness.host import process
from harness.machine.custody import private_folder


def main(way: str) -> None:
    sleeper = [sys.executable, "-c", "import sys, threading; print('up', flush=True); threading.Event().wait()"]
    folder = private_folder()
    path = folder.__enter__()
    (path / "ram").touch()
    worker = process.start([*sleeper, f"mem-path={path}/ram"])
    bystander = process.start([*sleeper, "elsewhere"])
    reaper = next(child.pid for child in psutil.Process().children() if "reaper.py" in " ".join(child.cmdline()))
    print(path, worker.pid, bystander.pid, reaper, flush=True)
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
