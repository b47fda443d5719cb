"""What the agent is asked for a final audit (harness/model/audit.py): how each volume is unmounted, checked and mounted again."""

from harness.guest.layout import Layout, PlacedVolume
from harness.model.audit import FILE_LIMIT_BYTES, AuditedVolume, audited_volumes
from harness.ops import Program

#: Each exits with 0 where it finds nothing, and writes nothing.
_CHECKS = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n")}
#: How long a volume may be busy after the processes that used it are gone, before an accelerator's time scale: an io_uring lets go of
#: its files in a worker of the kernel's.
_BUSY_S = 5.0


def audit_request(layout: Layout, program: Program, *, check: bool, scale: float, limit_s: float) -> dict[str, object] | None:
    """Return the arguments of the agent's request ``audit``, or None where no volume is mounted when ``program`` has ended."""
    found = audited_volumes(program, [as_set_up(placed) for placed in layout.mounted])
    places = {placed.volume.role: placed for placed in layout.volumes}
    volumes = [_row(volume, places[volume.role], check, limit_s) for volume in found if volume.filesystem in _CHECKS]
    return {"volumes": volumes, "file_limit": FILE_LIMIT_BYTES, "busy_s": _BUSY_S * scale} if volumes else None


def as_set_up(placed: PlacedVolume) -> AuditedVolume:
    """Return a volume as the set-up mounts it."""
    mount = placed.volume.mount
    assert mount is not None
    return AuditedVolume(placed.volume.role, str(mount.filesystem), "" if mount.dax is None else f"dax={mount.dax}")


def _row(volume: AuditedVolume, placed: PlacedVolume, check: bool, limit_s: float) -> dict[str, object]:
    row: dict[str, object] = {
        "role": volume.role,
        "folder": placed.folder,
        "device": placed.node,
        "filesystem": volume.filesystem,
        "options": volume.options,
    }
    return {**row, "check": [*_CHECKS[volume.filesystem], placed.node], "limit_s": limit_s} if check else row
