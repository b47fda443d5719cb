"""What the agent is asked for a final audit (harness/model/audit.py): how each volume is unmounted, checked and mounted again."""

from harness.guest.layout import OVERLAY_FOLDER, Layout, PlacedVolume
from harness.model.audit import FILE_LIMIT_BYTES, audited_volumes
from harness.model.filesystems import FILESYSTEM_TRAITS
from harness.ops import MountVolume, Program

#: How long a volume may be busy after the processes that used it are gone, before an accelerator's time scale: an io_uring lets go of
#: its files in a worker of the kernel's.
_BUSY_S = 5.0


def audit_request(layout: Layout, program: Program, *, check: bool, scale: float, limit_s: float) -> dict[str, object] | None:
    """Return the arguments of the agent's request ``audit``, or None where no volume is mounted when ``program`` has ended."""
    found = audited_volumes(program, [placed.mounting for placed in layout.mounted])
    places = {placed.volume.role: placed for placed in layout.volumes}
    rows = (_row(mount, places[mount.volume], check, limit_s) for mount in found)
    volumes = [row for row in rows if row is not None]
    above = [OVERLAY_FOLDER] if layout.overlays else []
    return {"above": above, "volumes": volumes, "file_limit": FILE_LIMIT_BYTES, "busy_s": _BUSY_S * scale} if volumes else None


def _row(mount: MountVolume, placed: PlacedVolume, check: bool, limit_s: float) -> dict[str, object] | None:
    """One volume, or None where nobody knows how its file system is checked."""
    traits = FILESYSTEM_TRAITS.get(mount.filesystem)
    if traits is None or traits.checker is None:
        return None
    row: dict[str, object] = {
        "role": mount.volume,
        "folder": placed.folder,
        "device": placed.node,
        "filesystem": mount.filesystem,
        "options": mount.options,
    }
    return {**row, "check": [*traits.checker.command, placed.node], "limit_s": limit_s} if check else row
