"""What is done to the system."""

import ctypes
import errno
import os

from harness.agent.outcome import Outcome, failed, outcome, returned
from harness.agent.performer import Performer, doer
from harness.agent.syscalls import call, read_text
from harness.ops.system import DropCaches, Meminfo, MountOverlay, MountVolume, UmountVolume

#: include/uapi/linux/mount.h
_MS_RDONLY = 1


def mount(device: str | bytes, folder: str | bytes, filesystem: str, options: str) -> int:
    """Do mount(2) with ``options`` as the data string, but ``ro``, which is a flag; return its result, or minus the error number."""
    words = options.split(",")
    flags, options = (_MS_RDONLY if "ro" in words else 0), ",".join(word for word in words if word != "ro")
    texts = [ctypes.create_string_buffer(os.fsencode(text)) for text in (device, folder, filesystem, options)]
    at = [ctypes.addressof(text) for text in texts]
    return call("mount", at[0], at[1], at[2], flags, at[3])


def unmount(folder: str | bytes) -> int:
    """Do umount2(2); return its result, or minus the error number."""
    text = ctypes.create_string_buffer(os.fsencode(folder))
    return call("umount2", ctypes.addressof(text), 0)


@doer
def do_mount(me: Performer, op: MountVolume) -> Outcome:
    return outcome(mount(*me.place.device(op.volume), op.filesystem, op.options))


@doer
def do_umount(me: Performer, op: UmountVolume) -> Outcome:
    return outcome(unmount(me.place.device(op.volume)[1]))


@doer
def do_mount_overlay(me: Performer, op: MountOverlay) -> Outcome:
    folder, lower, above = (os.fsdecode(me.place.path(f"{role}:")) for role in ("overlay", "main", "target"))
    upper, work = (os.path.join(above, name) for name in ("upper", "work"))
    for made in (folder, upper, work):
        os.makedirs(made, exist_ok=True)
    return outcome(mount("overlay", folder, "overlay", f"lowerdir={lower},upperdir={upper},workdir={work}"))


@doer
def do_drop_caches(me: Performer, op: DropCaches) -> Outcome:
    text = ctypes.create_string_buffer(b"3")
    try:
        descriptor = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    except OSError as error:
        return failed(error.errno or errno.EIO)
    result = call("write", descriptor, ctypes.addressof(text), 1)
    os.close(descriptor)
    return returned() if result >= 0 else failed(-result)


@doer
def do_meminfo(me: Performer, op: Meminfo) -> Outcome:
    rows = dict(line.split(":", 1) for line in read_text("/proc/meminfo").splitlines())
    # The page cache of files is counted as Cached, that of block device nodes as Buffers.
    return returned(sum(int(rows[name].split()[0]) * 1024 for name in ("Cached", "Buffers")))
