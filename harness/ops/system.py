"""Operations on the system."""

from harness.ops.words import Operation, VolumeName, operation


@operation("mount")
class MountVolume(Operation):
    """mount(2) of a volume's device on its mount point; ``options`` is the data string, but the word `ro`, which is a flag."""

    volume: VolumeName = "main"
    filesystem: str = "ext4"
    options: str = ""


@operation("umount")
class UmountVolume(Operation):
    volume: VolumeName = "main"


@operation("mount_overlay")
class MountOverlay(Operation):
    """mount(2) of overlayfs: below what is mounted of the main volume, which nobody can write to, above it folders of the target that are
    made for it. A path `overlay:name` is a file of both."""


@operation("drop_caches")
class DropCaches(Operation):
    """Write 3 to /proc/sys/vm/drop_caches: clean, unused page cache goes."""


@operation("meminfo")
class Meminfo(Operation):
    """/proc/meminfo; the value is Cached and Buffers together, in bytes: the whole page cache."""
