"""Which kernels a run is about, and which flavour a case gets."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from harness.case.case import KERNEL_FLAVOURS, Needs
from harness.errors import UsageError
from harness.image.catalog import Catalog, KernelChoice, load_catalog
from harness.lease import kernels as subject
from harness.lease.kernels import Kernels, Unsuitable, lacking_options, read_kernels, select_kernels
from harness.record.item import Target
from tests.unit.image.kernels import write_kernel

FULL = Needs(kernel_flavour="full")


XDP = Needs(kernel_options=("CONFIG_XDP_SOCKETS",))
RDMA = Needs(kernel_options=("CONFIG_RDMA_RXE", "CONFIG_INFINIBAND_USER_ACCESS"))


def kernels(*options: str) -> Kernels:
    return select_kernels(options, load_catalog())


def without(*names: str) -> Catalog:
    """The catalogue of the project, without some of its kernels."""
    catalog = load_catalog()
    return replace(catalog, kernels={name: kernel for name, kernel in catalog.kernels.items() if name not in names})


def nobody(text: str) -> None:
    raise AssertionError(text)


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


def test_a_kernel_from_source_that_nobody_compiled_can_run_no_case_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEM_HARNESS_CACHE", str(tmp_path))
    (found,) = kernels("source_6.12").targets(Needs())
    assert isinstance(found, Unsuitable)
    assert found.reason.startswith("source_6.12 is not built, ")
    assert found.reason.endswith(": python -m harness images build --kernel source_6.12")
    monkeypatch.setattr(subject, "why_not_compiled", lambda *_: None)
    assert kernels("source_6.12").targets(Needs()) == (Target("source_6.12", "source_6.12", "source_6.12"),)


def test_two_patches_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "fix.patch").touch()
    with pytest.raises(UsageError, match=r"two kernels would both be called source_6.12\+fix: .*a/fix.patch and .*b/fix.patch; rename"):
        kernels(f"source_6.12+{tmp_path}/a/fix.patch", f"source_6.12+{tmp_path}/b/fix.patch")


def test_an_unknown_kernel_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no kernel 'debian_5': give one of debian_5.10, .* or the path of"):
        kernels("debian_5")


def test_a_case_that_needs_another_flavour_runs_on_that_for_the_selected_kernel() -> None:
    assert kernels().targets(FULL) == (Target("debian_6.12_full", "debian_6.12"),)


def test_a_flavour_that_is_selected_too_is_run_on_once() -> None:
    assert kernels("debian_6.12", "debian_6.12_full").targets(FULL) == (Target("debian_6.12_full", "debian_6.12"),)


def test_a_case_can_ask_for_every_flavour_that_there_is() -> None:
    assert {kernel.flavour for kernel in load_catalog().kernels.values()} - {""} <= set(KERNEL_FLAVOURS)


def test_a_flavour_is_what_its_entry_says_whatever_it_is_called() -> None:
    plain = without("debian_6.1_full", "debian_6.12_full")
    other = replace(plain, kernels={**plain.kernels, "loaded": replace(load_catalog().kernels["debian_6.1_full"], name="loaded")})
    assert select_kernels(["debian_6.1"], other).targets(FULL) == (Target("loaded", "debian_6.1", "debian_6.1"),)
    assert select_kernels(["loaded"], other).targets(FULL) == (Target("loaded", "loaded", "loaded"),)
    (found,) = select_kernels(["debian_6.12"], other).targets(FULL)
    assert isinstance(found, Unsuitable)


def test_a_kernel_without_the_flavour_cannot_run_the_case_and_says_so() -> None:
    (found,) = select_kernels(["debian_6.1"], without("debian_6.1_full")).targets(FULL)
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


def test_an_option_that_is_built_in_or_a_module_is_there() -> None:
    assert lacking_options({"XDP_SOCKETS": "y"}, XDP) is None
    assert lacking_options({"RDMA_RXE": "m", "INFINIBAND_USER_ACCESS": "m"}, RDMA) is None
    assert lacking_options({}, Needs()) is None


@pytest.mark.parametrize("config", [{}, {"XDP_SOCKETS": "n"}, {"CONFIG_XDP_SOCKETS": "y"}])
def test_an_option_that_is_not_there_is_named_with_what_it_is_for(config: dict[str, str]) -> None:
    assert lacking_options(config, XDP) == "the kernel was built without CONFIG_XDP_SOCKETS (AF_XDP sockets)"


def test_only_the_options_that_are_missing_are_named() -> None:
    reason = lacking_options({"RDMA_RXE": "y"}, RDMA) or ""
    assert reason == "the kernel was built without CONFIG_INFINIBAND_USER_ACCESS (RDMA verbs for programs)"


def test_an_own_kernel_is_asked_without_making_its_image(tmp_path: Path) -> None:
    write_kernel(tmp_path / "boot", "CONFIG_RDMA_RXE=m\nCONFIG_INFINIBAND_USER_ACCESS=y\nCONFIG_XDP_SOCKETS=y\n")
    own = kernels(str(tmp_path))
    name = own.selected[0].kernel
    assert own.lacking(name, XDP, nobody) is None
    # The folder has no modules, so one that is a module cannot be loaded.
    assert own.lacking(name, RDMA, nobody) == "the kernel was built without CONFIG_RDMA_RXE (soft-RoCE, the RDMA device of a guest)"


def test_a_packaged_kernel_is_fetched_only_for_a_case_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Image:
        config: ClassVar = {"XDP_SOCKETS": "y"}
        release = "5.10.0-46-cloud-amd64"

    def image(choice: KernelChoice, _: object) -> Image:
        asked.append(choice.name)
        return Image()

    monkeypatch.setattr(subject, "guest_image", image)
    assert kernels().lacking("debian_6.12", Needs(ivshmem=True), nobody) is None
    assert asked == []
    assert kernels().lacking("debian_6.12", XDP, nobody) is None
    assert "CONFIG_RDMA_RXE" in (kernels().lacking("debian_6.12_full", RDMA, nobody) or "")
    assert asked == ["debian_6.12", "debian_6.12_full"]
    assert kernels().lacking("debian_5.10", Needs(since=(5, 10)), nobody) is None
    early = "the kernel is 5.10.0-46-cloud-amd64, and DAX of its file system came with 5.15"
    assert kernels().lacking("debian_5.10", Needs(since=(5, 15)), nobody) == early


def test_words_for_the_command_line_go_with_every_kernel_and_flavour() -> None:
    found = select_kernels(["debian_6.12", "debian_6.1"], load_catalog(), "  one   two=2 ")
    assert found.arguments == ("one", "two=2")
    assert [target.arguments for target in found.selected] == ["one two=2", "one two=2"]
    (full, _) = found.targets(FULL)
    assert full == Target("debian_6.12_full", "debian_6.12", "", "one two=2")


def test_words_that_would_break_a_guest_are_refused_before_anything_is_collected() -> None:
    with pytest.raises(UsageError, match="'quiet' cannot be given"):
        select_kernels([], load_catalog(), "quiet")
