"""Guests that were saved: what a template holds, and the store they are kept in.

A template is published whole or not at all, and verified before a process first uses it. The ones not used for longest go when all
together are too large.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.guest.session import SessionState
from harness.host import settings
from harness.host.cache import Progress, remove_entry
from harness.host.deadline import Deadline
from harness.host.sparse import checksum
from harness.machine.regions.maker import Placement
from harness.model.stack import StackReading
from harness.ops.codec import DocumentError
from harness.record.documents import from_document
from harness.sizes import format_size, parse_size

log = logging.getLogger(__name__)

MANIFEST = "template.json"
FORMAT = 1
#: How long a template may take to be made, and so its lock to be free.
BUILD_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Manifest:
    """What is known of a saved guest. ``checksums``: of the other files beside the manifest, by name.

    ``reading`` and a layout in ``session`` are there on the second level only. ``made_of`` is for people: kernel, QEMU, stack.
    ``complaints``: the console lines of its boot and set-up that look like complaints, all of them expected when it was saved.
    """

    placements: tuple[Placement, ...]
    session: SessionState
    reading: StackReading | None
    made_of: tuple[tuple[str, str], ...]
    checksums: tuple[tuple[str, str], ...] = ()
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template(Manifest):
    """A saved guest in its folder."""

    folder: Path = Path()


@dataclass(frozen=True)
class StoredTemplate:
    """An entry of the store as people see it: ``used_s`` is when it was last used, in seconds since the epoch."""

    name: str
    size_bytes: int
    used_s: float
    made_of: Mapping[str, str]


def load_template(folder: Path) -> Template:
    """Return what the manifest in ``folder`` says. Raises UsageError for one that cannot be read."""
    try:
        document = json.loads((folder / MANIFEST).read_text())
        if document.get("format") != FORMAT:
            raise UsageError(f"{folder / MANIFEST} has format {document.get('format')!r}, this harness reads {FORMAT}")
        loaded = from_document(Manifest, document)
    except (OSError, ValueError, AttributeError, DocumentError) as error:
        raise UsageError(f"{folder / MANIFEST} cannot be read: {error}") from error
    return Template(loaded.placements, loaded.session, loaded.reading, loaded.made_of, loaded.checksums, loaded.complaints, folder)


def find_damage(template: Template) -> str | None:
    """Return which file of a template is not as it was made, or None. Reads all of it. Raises OSError."""
    for name, expected in template.checksums:
        found = checksum(template.folder / name)
        if found != expected:
            return f"{name} is {found}, it was made as {expected} (bytes:CRC-32)"
    return None


def template_damage(folder: Path) -> str | None:
    """Return what is wrong with the template in ``folder``, or None. Reads all of it."""
    try:
        return find_damage(load_template(folder))
    except (OSError, UsageError) as error:
        return str(error)


def note_use(folder: Path) -> None:
    """Have a template count as used now. One that is gone by now, or another user's, does not mind."""
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)


def look_of(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def stored_templates(store: Path | None = None) -> tuple[StoredTemplate, ...]:
    """Return all templates, the one used last first; one whose manifest cannot be read is there with no description."""
    found = []
    for manifest in (store or settings.templates_root()).glob(f"*/{MANIFEST}"):
        folder = manifest.parent
        try:
            made_of = dict(load_template(folder).made_of)
        except UsageError as error:
            made_of = {"damaged": str(error)}
        with contextlib.suppress(FileNotFoundError):  # somebody removes it just now
            size = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
            found.append(StoredTemplate(folder.name, size, manifest.stat().st_mtime, made_of))
    return tuple(sorted(found, key=lambda template: -template.used_s))


def remove_template(name: str, progress: Progress, store: Path | None = None, limit_s: float = BUILD_LIMIT_S) -> None:
    """Remove one template; clones that run are not disturbed. Raises UsageError, naming what there is, and HostError where it is locked."""
    store = store or settings.templates_root()
    names = [template.name for template in stored_templates(store)]
    if name not in names or not remove_entry(store, name, progress, Deadline.after(limit_s)):
        raise UsageError(f"no template {name!r}; there are: {', '.join(names) or 'none'}")


def prune_templates(keep: set[str], store: Path | None = None) -> None:
    """Remove those that were not used for longest until all fit into the limit of the settings; never one of ``keep``.

    Best effort: one that another process works on, or may not be removed, stays.
    """
    limit = templates_limit_bytes()
    total = 0
    for template in stored_templates(store):
        total += template.size_bytes
        if total > limit and template.name not in keep:
            try:
                remove_template(template.name, lambda _: None, store, limit_s=0)
            except (HarnessError, OSError) as error:
                log.warning("the template %s stays, though all are larger than %s: %s", template.name, format_size(limit), error)
            else:
                log.info("threw %s away: all templates were larger than %s", template.name, format_size(limit))
                total -= template.size_bytes


def templates_limit_bytes() -> int:
    """Return how much room templates may take. Raises UsageError for a setting that is no size."""
    try:
        return parse_size(settings.templates_limit_text())
    except ValueError as error:
        raise UsageError(f"{settings.PREFIX}TEMPLATES_SIZE: {error}") from error
