"""Which kernels a run is about, and which flavour a case gets."""

from pathlib import Path

import pytest

from harness.case.case import Needs
from harness.errors import UsageError
from harness.image.catalog import load_catalog
from harness.run.artifacts import Target
from harness.run.kernels import Kernels, Unsuitable, read_kernels, select_kernels

FULL = Needs(kernel_flavour="full")


def kernels(*options: str) -> Kernels:
    return select_kernels(options, load_catalog())


def test_without_an_option_the_default_is_selected() -> None:
    assert kernels().selected == (Target("debian_6.12", "debian_6.12"),)
    assert read_kernels([]).selected == kernels().selected


def test_kernels_are_selected_in_order_and_each_once() -> None:
    names = [target.kernel for target in kernels("debian_6.1", "debian_6.12", "debian_6.1").selected]
    assert names == ["debian_6.1", "debian_6.12"]


def test_only_a_kernel_that_is_not_the_default_has_to_be_named_again() -> None:
    assert [target.option for target in kernels("debian_6.12", "debian_6.1").selected] == ["", "debian_6.1"]


def test_two_kernels_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "linux").touch()
    with pytest.raises(UsageError, match=r"two kernels would both be called own_linux: .*a/linux and .*b/linux; rename one"):
        kernels(str(tmp_path / "a/linux"), str(tmp_path / "b/linux"))
    assert len(kernels(str(tmp_path / "a/linux"), str(tmp_path / "a/linux")).selected) == 1


def test_an_unknown_kernel_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no kernel 'debian_5': give one of debian_6.12, .* or the path of"):
        kernels("debian_5")


def test_a_case_that_needs_another_flavour_runs_on_that_for_the_selected_kernel() -> None:
    assert kernels().targets(FULL) == (Target("debian_6.12_full", "debian_6.12"),)


def test_a_flavour_that_is_selected_too_is_run_on_once() -> None:
    assert kernels("debian_6.12", "debian_6.12_full").targets(FULL) == (Target("debian_6.12_full", "debian_6.12"),)


def test_a_kernel_without_the_flavour_cannot_run_the_case_and_says_so() -> None:
    (found,) = kernels("debian_6.1").targets(FULL)
    assert isinstance(found, Unsuitable)
    assert found.reason == "it needs the full flavour of a kernel, and images/kernels.yaml has none of debian_6.1"


def test_the_users_own_kernel_runs_every_case(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    own = kernels(str(tmp_path / "linux"))
    assert own.targets(FULL) == own.selected
    assert own.selected[0].kernel == "own_linux"
    assert own.choice("own_linux").path == (tmp_path / "linux").resolve()
    assert own.choice("debian_6.12_full").path is None
    assert "own_linux" in own.names
