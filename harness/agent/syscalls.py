"""System calls as x86_64 Linux numbers them, and whether this process is in one right now."""

import ctypes
import errno
import os
import signal

_LIBC = ctypes.CDLL(None, use_errno=True)
SYSCALL = _LIBC.syscall
SYSCALL.restype = ctypes.c_long
SYSCALL.argtypes = [ctypes.c_long] * 7
MEMMOVE = _LIBC.memmove
MEMMOVE.restype = None
MEMMOVE.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
GETRUSAGE = _LIBC.getrusage
GETRUSAGE.restype = ctypes.c_int
GETRUSAGE.argtypes = [ctypes.c_int, ctypes.c_void_p]

#: System call numbers of x86-64.
NR = {
    "open": 2,
    "close": 3,
    "poll": 7,
    "read": 0,
    "write": 1,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "ioctl": 16,
    "pread64": 17,
    "pwrite64": 18,
    "msync": 26,
    "mincore": 27,
    "madvise": 28,
    "sendfile": 40,
    "sendto": 44,
    "recvfrom": 45,
    "recvmsg": 47,
    "clone": 56,
    "fcntl": 72,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "mlock": 149,
    "munlock": 150,
    "prctl": 157,
    "mount": 165,
    "umount2": 166,
    "readahead": 187,
    "futex": 202,
    "fadvise64": 221,
    "splice": 275,
    "tee": 276,
    "sync_file_range": 277,
    "vmsplice": 278,
    "fallocate": 285,
    "pipe2": 293,
    "preadv": 295,
    "pwritev": 296,
    "syncfs": 306,
    "process_vm_readv": 310,
    "copy_file_range": 326,
    "preadv2": 327,
    "pwritev2": 328,
    "statx": 332,
    "io_uring_setup": 425,
    "io_uring_register": 427,
    "setsockopt": 54,
    "socket": 41,
}


def clone(flags: int = 0) -> int:
    """Fork, and nothing of what Python does beside; return the new process, 0 in that itself, or minus the error number.

    Not through call(): the child would say on its way out that this process is in no operation, whatever it does by then.
    """
    process: int = SYSCALL(NR["clone"], flags | signal.SIGCHLD, 0, 0, 0, 0, 0)
    return process if process != -1 else -ctypes.get_errno()


class Inside:
    """Whether this process is in the operation of a step right now, in a byte that the supervisor can read when the process is gone."""

    byte = ctypes.c_ubyte(0)


def call(name: str, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Do one system call; return its result, or minus the error number."""
    Inside.byte.value = 1
    result: int = SYSCALL(NR[name], a, b, c, d, e, f)
    Inside.byte.value = 0
    return result if result != -1 else -ctypes.get_errno()


_ERRNO_NAMES = {**errno.errorcode, 95: "EOPNOTSUPP", 11: "EAGAIN", 35: "EDEADLK", 524: "ENOTSUPP"}


def errno_name(number: int) -> str:
    return _ERRNO_NAMES.get(number, f"E{number}")


def read_text(path: str) -> str:
    """Return what a file of the kernel's has: past Python's files, which cost more than the reading. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 1 << 16):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode(errors="replace")
