"""The agent as one file, made on the host: an archive that Python runs, with ``harness.ops`` in it. Its hash names templates, so equal
sources make equal bytes, wherever and whenever they were written."""

import functools
import io
import zipfile
from importlib import resources
from importlib.resources.abc import Traversable

#: What travels of the package ``harness``. What is read here is read by guests only as far as it is imported there.
_MODULES = ("__init__.py", "errors.py")
_PACKAGES = ("agent", "ops")
_STAYS = frozenset({"bundle.py"})
#: What gathers names for the host is empty in a guest, where each is taken from its own module.
_EMPTY = frozenset({"ops/__init__.py"})
#: What Python runs.
_START = "agent/start.py"
#: The first moment that an archive can name.
_DATE = (1980, 1, 1, 0, 0, 0)


@functools.cache
def agent_archive() -> bytes:
    """Return the archive as the sources were when this process first asked: what runs in guests, whatever is edited meanwhile."""
    return archive_of(resources.files("harness"))


def archive_of(package: Traversable) -> bytes:
    """Return the archive of the agent in ``package``, a folder with the sources of ``harness``."""
    members = {name: package.joinpath(name) for name in _MODULES}
    for folder in _PACKAGES:
        found = {entry.name: entry for entry in package.joinpath(folder).iterdir() if entry.name.endswith(".py")}
        members |= {f"{folder}/{name}": found[name] for name in found.keys() - _STAYS}
    names = {name: "__main__.py" if name == _START else f"harness/{name}" for name in members}
    texts = {names[name]: b"" if name in _EMPTY else member.read_bytes() for name, member in members.items()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(texts.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, whatever makes it
            archive.writestr(entry, text)
    return made.getvalue()
