#!/usr/bin/env python3
"""A QEMU that only runs the self-test of accelerators: it sleeps for as long as the guest would take, and ends as the guest would end it.

Its first argument is JSON: for each accelerator ``start_s`` and ``turn_s``, the seconds of a start and of each turn that the image asks
for; their number is in the image at ``turns_offset``. ``dies``: what it says before it ends with status 1. ``hangs``: it never ends.
``from_turns``: both only where so many are asked for.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path


def main(paces: str, *arguments: str) -> None:
    given = dict(itertools.pairwise(arguments))
    told = json.loads(paces)
    pace, at = told[given["-accel"]], told["turns_offset"]
    turns = int.from_bytes(Path(given["-bios"]).read_bytes()[at : at + 4], "little")
    if turns >= pace.get("from_turns", 1):
        if "dies" in pace:
            print(pace["dies"], file=sys.stderr)
            sys.exit(1)
        if "hangs" in pace:
            sleep_until(3600)
    sleep_until(pace["start_s"] + turns * pace["turn_s"])
    sys.exit(0x2A << 1 | 1)


def sleep_until(age_s: float) -> None:
    """Sleep until this process is so old: what Python itself took to start, on a busy host, is part of it."""
    began_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age_now_s = time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / os.sysconf("SC_CLK_TCK")
    time.sleep(max(0.0, age_s - age_now_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
