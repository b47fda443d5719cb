"""Settings come from the environment, and have defaults."""

from pathlib import Path

import pytest

from harness.host import settings


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    assert settings.cache_root() == tmp_path


def test_cache_folder_is_the_users_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMEM_HARNESS_CACHE", raising=False)
    assert settings.cache_root().name == "pmem-harness"


def test_empty_mirror_setting_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_MIRROR", "")
    assert settings.package_mirror() is None
