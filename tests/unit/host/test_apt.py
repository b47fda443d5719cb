"""Where packages come from is read from apt's own files, in both notations."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.apt import Archive, Mirrors, backports_entry, find_mirrors, read_apt_sources, source_lines

DEB822 = """# made by the installer
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://old.example/debian
Suites: bullseye
Components: main

Types: deb
URIs: http://keys.example/debian
Suites: sid
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""
ONE_LINE = """# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/keys/shop.gpg] https://shop.example/apt stable shop
deb-src http://mirror.example/debian trixie main
deb [ signed-by=/etc/keys/debian.gpg ] http://mirror.example/debian trixie main non-free  # ours
deb http://mirror.example/security trixie-security main
"""


def apt_folder(tmp_path: Path, one_line: str = "", deb822: str = "") -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(one_line)
    (tmp_path / "sources.list.d/debian.sources").write_text(deb822)
    return tmp_path


def test_deb822_entries_are_read_without_disabled_ones(tmp_path: Path) -> None:
    found = read_apt_sources(apt_folder(tmp_path, deb822=DEB822))
    assert [archive.uri for archive in found] == [
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
        "http://keys.example/debian",
    ]
    assert found[0] == Archive(
        "http://mirror.example/debian",
        ("bookworm", "bookworm-updates"),
        ("main", "contrib"),
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    )


def test_key_written_into_the_entry_has_no_file(tmp_path: Path) -> None:
    assert read_apt_sources(apt_folder(tmp_path, deb822=DEB822))[2].signed_by is None


def test_one_line_entries_are_read_without_comments_and_sources(tmp_path: Path) -> None:
    found = read_apt_sources(apt_folder(tmp_path, one_line=ONE_LINE))
    assert [(archive.uri, archive.signed_by) for archive in found] == [
        ("https://shop.example/apt", "/etc/keys/shop.gpg"),
        ("http://mirror.example/debian", "/etc/keys/debian.gpg"),
        ("http://mirror.example/security", None),
    ]


def test_debian_is_told_from_other_archives(tmp_path: Path) -> None:
    mirrors = find_mirrors(read_apt_sources(apt_folder(tmp_path, one_line=ONE_LINE)), None)
    assert mirrors.main is not None
    assert mirrors.security is not None
    assert (mirrors.main.uri, mirrors.security.uri) == ("http://mirror.example/debian", "http://mirror.example/security")


def test_suite_is_replaced_and_brings_its_updates_and_security_updates(tmp_path: Path) -> None:
    mirrors = find_mirrors(read_apt_sources(apt_folder(tmp_path, one_line=ONE_LINE)), None)
    assert source_lines("bookworm", mirrors) == (
        "deb [signed-by=/etc/keys/debian.gpg] http://mirror.example/debian bookworm main",
        "deb [signed-by=/etc/keys/debian.gpg] http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/security bookworm-security main",
    )


@pytest.mark.parametrize(
    ("suite", "suites"),
    [
        ("trixie-backports", ["trixie", "trixie-updates", "trixie-security", "trixie-backports"]),
        ("sid", ["sid"]),
        ("experimental", ["sid", "experimental"]),
    ],
)
def test_a_suite_comes_with_what_it_adds_to_and_only_with_the_updates_that_there_are(suite: str, suites: list[str]) -> None:
    mirrors = find_mirrors((), "http://mine.example/d http://mine.example/s")
    assert [line.split()[-2] for line in source_lines(suite, mirrors)] == suites


def test_a_suite_that_only_adds_to_another_needs_a_mirror_that_is_known() -> None:
    assert source_lines("trixie", Mirrors(None, None)) == ()
    with pytest.raises(HostError, match=r"no mirror is known that has trixie-backports: .*; name one with PMEM_HARNESS_MIRROR"):
        source_lines("trixie-backports", Mirrors(None, None))


def test_setting_comes_before_apt_and_may_name_a_security_archive(tmp_path: Path) -> None:
    archives = read_apt_sources(apt_folder(tmp_path, one_line=ONE_LINE))
    assert source_lines("trixie", find_mirrors(archives, "http://mine.example/d http://mine.example/s")) == (
        "deb http://mine.example/d trixie main",
        "deb http://mine.example/d trixie-updates main",
        "deb http://mine.example/s trixie-security main",
    )
    assert len(source_lines("trixie", find_mirrors(archives, "http://mine.example/d"))) == 2


def test_computer_without_debian_leaves_the_choice_to_mmdebstrap(tmp_path: Path) -> None:
    mirrors = find_mirrors(read_apt_sources(tmp_path / "nothing"), None)
    assert mirrors == Mirrors(None, None)
    assert source_lines("trixie", mirrors) == ()


def test_backports_entry_uses_the_mirror_and_keys_of_the_host() -> None:
    archive = Archive("http://mirror.example/debian", ("bookworm",), ("main",), "/k.gpg")
    expected = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n"
    assert backports_entry("bookworm", archive) == expected
