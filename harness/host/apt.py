"""What apt is configured to use on this computer, read from its files: where Debian packages come from.

Standard library only: ./bootstrap reads it before anything is installed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError

_RELEASE = r"(?:[a-z]+|oldoldstable|oldstable|stable|testing|unstable)"
_MAIN_SUITE = re.compile(rf"{_RELEASE}(?:-updates|-backports)?")
_SECURITY_SUITE = re.compile(rf"{_RELEASE}(?:-security|/updates)")
_DEBIAN_NAMES = {"buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"} | {
    f"{word}stable" for word in ("", "old", "oldold", "un")
} | {"testing"}  # fmt: skip

#: The suite that packages enter first: nothing is released from it, so it has neither updates nor security updates.
_ENTRANCE = {"sid", "unstable"}


@dataclass(frozen=True)
class Archive:
    """One entry of apt's configuration: where, for which suites, and the file with the keys that sign it (if named)."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None


@dataclass(frozen=True)
class Mirrors:
    """The archives that images are built from; None leaves the choice to mmdebstrap."""

    main: Archive | None
    security: Archive | None


def read_apt_sources(apt_folder: Path = Path("/etc/apt")) -> tuple[Archive, ...]:
    """Return the enabled binary entries of apt's configuration, in both of its notations, in apt's order."""
    lists = [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*.list"))]
    found: list[Archive] = []
    for file in lists:
        if file.is_file():
            found += _one_line_entries(file.read_text(errors="replace"))
    for file in sorted((apt_folder / "sources.list.d").glob("*.sources")):
        found += _deb822_entries(file.read_text(errors="replace"))
    return tuple(found)


def find_mirrors(archives: Iterable[Archive], setting: str | None) -> Mirrors:
    """Return the mirrors to build from: the setting (``URI`` or ``URI SECURITY-URI``), else what apt uses here.

    On a computer without entries for Debian both are None: mmdebstrap then chooses, security updates included.
    """
    if setting:
        uris = setting.split()
        named = [Archive(uri, (), ("main",), None) for uri in uris]
        return Mirrors(named[0], named[1] if len(named) > 1 else None)
    debian = [entry for entry in archives if "main" in entry.components]
    main = next((entry for entry in debian if any(_is_debian(suite, _MAIN_SUITE) for suite in entry.suites)), None)
    security = next((entry for entry in debian if any(_is_debian(suite, _SECURITY_SUITE) for suite in entry.suites)), None)
    return Mirrors(main, security if main else None)


def base_suite(suite: str) -> str:
    """Return the suite that ``suite`` only adds to, such as trixie for trixie-backports; most are their own base."""
    return "sid" if suite == "experimental" else suite.split("-")[0]


def source_lines(suite: str, mirrors: Mirrors) -> tuple[str, ...]:
    """Return what mmdebstrap is told to use for ``suite``: its base with updates and security updates, and what it adds to that.

    Empty: mmdebstrap's own choice. Raises HostError for an addition where that choice would be without it.
    """
    base = base_suite(suite)
    if mirrors.main is None:
        if suite != base:
            raise HostError(
                f"no mirror is known that has {suite}: apt's configuration names no Debian archive on this computer;"
                " name one with PMEM_HARNESS_MIRROR"
            )
        return ()
    lines = [_source_line(mirrors.main, base)]
    if base not in _ENTRANCE:
        lines.append(_source_line(mirrors.main, f"{base}-updates"))
        if mirrors.security is not None:
            lines.append(_source_line(mirrors.security, f"{base}-security"))
    if suite != base:
        lines.append(_source_line(mirrors.main, suite))
    return tuple(lines)


def backports_entry(codename: str, main: Archive) -> str:
    """Return the text of an entry for the backports of ``codename``, on the mirror and with the keys of ``main``."""
    signed = f"Signed-By: {main.signed_by}\n" if main.signed_by else ""
    return f"Types: deb\nURIs: {main.uri}\nSuites: {codename}-backports\nComponents: main\n{signed}"


def _is_debian(suite: str, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(suite)) and re.split(r"[-/]", suite)[0] in _DEBIAN_NAMES


def _source_line(archive: Archive, suite: str) -> str:
    signed = f"[signed-by={archive.signed_by}] " if archive.signed_by else ""
    return f"deb {signed}{archive.uri} {suite} main"


def _one_line_entries(text: str) -> list[Archive]:
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)(?:#.*)?", line)
        if match:
            options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
            found.append(Archive(match[2], (match[3],), tuple(match[4].split()), _key_file(options.get("signed-by"))))
    return found


def _deb822_entries(text: str) -> list[Archive]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace():
                fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if enabled and "deb" in fields.get("types", "").split():
            suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
            key = _key_file(fields.get("signed-by"))
            found += [Archive(uri, suites, components, key) for uri in fields.get("uris", "").split()]
    return found


def _key_file(value: str | None) -> str | None:
    """A key that stands in the entry itself has no file; mmdebstrap then looks for Debian's own keys."""
    return value if value and value.startswith("/") and "\n" not in value else None
