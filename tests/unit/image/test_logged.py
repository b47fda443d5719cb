"""What a long command of a build said when it failed is kept where the message says."""

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.host.deadline import Deadline
from harness.image.logged import FAILED_BUILD_LOG, run_logged


def test_a_build_that_fails_names_a_log_that_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    (tmp_path / "building").mkdir()
    log = tmp_path / "building/make.log"
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_logged(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), log)
    assert str(log) not in str(caught.value)
    assert f"whole output: {tmp_path / FAILED_BUILD_LOG}" in str(caught.value)
    assert (tmp_path / FAILED_BUILD_LOG).read_text() == "no mirror answers\n"


def test_a_build_that_fails_where_nothing_can_be_kept_names_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path / "nowhere"))
    with pytest.raises(HostError, match="no mirror answers") as caught:
        run_logged(["sh", "-c", "echo no mirror answers; exit 25"], Deadline.after(60), tmp_path / "log")
    assert "whole output" not in str(caught.value)
