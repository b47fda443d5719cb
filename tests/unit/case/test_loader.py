"""Text becomes a case, and every complaint names file, line, key and what is accepted."""

from pathlib import Path

import pytest

from harness.case.claims import load_claims, read_claims, read_family
from harness.case.known import load_nearest_expected, load_nearest_known, read_expected, read_known
from harness.case.loader import find_case_files, load_plans, read_plans
from harness.errors import CaseError
from harness.model.claims import Status
from harness.model.known import ExpectedLine, KnownDeviation
from harness.model.watch import Watch
from harness.ops import Buffer, Mmap, OpenFlag, Preadv, Protection, Pwrite, Store
from harness.sizes import KIB
from tests.unit.case.sample import CLAIMS, HEAD, OPEN, only, plans, sample

# ---- what is read ----------------------------------------------------------------------------------------------------


def test_a_step_becomes_its_operation_with_sizes_in_bytes_and_flags_as_words() -> None:
    plan = only("  - pwrite: {file: f, offset: 1MiB-512, length: 64KiB}\n")
    assert plan.program.steps[0].operation.flags == (OpenFlag.RDWR, OpenFlag.CREAT)  # type: ignore[attr-defined]
    assert plan.program.steps[1].operation == Pwrite(file="f", offset=1024 * KIB - 512, length=64 * KIB)


def test_a_step_knows_its_line() -> None:
    assert [step.line for step in only("  - fsync: {file: f}\n").program.steps] == [4, 5]


def test_buffers_of_an_iovec_are_tables() -> None:
    plan = only("  - preadv: {file: f, offset: 0, buffers: [{length: 1KiB}, {length: 100, shift: 7}]}\n")
    assert plan.program.steps[1].operation == Preadv("f", 0, (Buffer(KIB), Buffer(100, 7)))


def test_the_underscore_of_a_field_is_not_written() -> None:
    plan = only("  - mmap: {name: m, file: f, length: 4KiB}\n  - pwrite: {file: f, offset: 0, from: m, length: 1KiB}\n")
    assert plan.program.steps[2].operation == Pwrite("f", 0, KIB, from_="m")


def test_an_operation_without_arguments_needs_no_table() -> None:
    assert only("  - drop_caches:\n").program.steps[1].operation.call == "drop_caches"


def test_numbers_that_are_not_bytes_may_be_hexadecimal() -> None:
    plan = only("  - mmap: {name: m, file: f, length: 4KiB}\n  - store: {mapping: m, offset: 0, value: 0x10}\n")
    assert plan.program.steps[2].operation == Store("m", 0, 4, 16)


def test_none_in_a_list_of_flags_is_no_flag_unless_it_is_one() -> None:
    plan = only("  - mmap: {name: m, file: f, length: 4KiB, flags: [shared, none], protection: [none]}\n")
    made = plan.program.steps[1].operation
    assert isinstance(made, Mmap)
    assert (made.flags, made.protection) == (("shared",), (Protection.NONE,))


def test_an_optional_argument_may_be_none() -> None:
    plan = only("  - pipe: {name: p}\n  - splice: {source: f, target: p, length: 4KiB, source_offset: none}\n")
    assert plan.program.steps[2].operation.source_offset is None  # type: ignore[attr-defined]


def test_title_and_notes_are_folded_and_the_family_is_the_folder() -> None:
    case = sample("  - fsync: {file: f}\n", HEAD + "notes: >-\n  two\n  lines\nclaim: it_works\nmount_in_program: true\n")
    assert (case.title, case.notes, case.family, case.name) == ("A sample", "two lines", "family", "sample")
    assert (case.claims, case.mount_in_program) == (("it_works",), True)


def test_the_registry_is_found_in_the_nearest_folder_above_the_case(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(REGISTRY)
    case = tmp_path / "family" / "sample.yaml"
    case.parent.mkdir()
    case.write_text(HEAD + "claim: first\nprogram:\n" + OPEN)
    assert load_plans(case)[0].case.claims == ("first",)
    assert find_case_files(tmp_path) == [case]


def test_without_a_registry_no_claim_is_known(tmp_path: Path) -> None:
    case = tmp_path / "sample.yaml"
    case.write_text(HEAD + "claim: first\nprogram:\n" + OPEN)
    with pytest.raises(CaseError, match="has no claim 'first'; accepted: nothing"):
        load_plans(case)


# ---- complaints about the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "the file is empty"),
        ("title: a\n\taxes: b\n", 2, "a tab; YAML is indented with spaces"),
        ("title: a\ntitle: b\n", 2, "the key 'title' stands twice (first at c.yaml:1)"),
        ("title: [a\n", 2, "not YAML: while parsing a flow sequence"),
        ("title: &a b\nnotes: *a\n", 1, "a YAML alias (*name)"),
        ("[a]: b\n", 1, "a key must be one word or number"),
        ("- a\n", 1, "a case must be a mapping"),
        ("titel: a\n", 1, "unknown key 'titel' in a case; did you mean title?"),
        ("title: a\n", 1, "a case needs the key 'axes'"),
        ("title: a\naxes: {storage: [dax]}\n", 1, "a case needs the key 'program'"),
        ("axes: {storage: [dax]}\nprogram: [{meminfo: {}}]\n", 1, "a case needs the key 'title'"),
        ("title: a\naxes: {storage: [dax]}\nprogram: []\n", 3, "program must be a list with at least one step"),
        ("title: a\naxes: {storage: [dax]}\nprogram:\n", 3, "program must be a list with at least one step"),
        ("title: a\naxes: {storage: [dax]}\nprogram: [word]\n", 3, "a step must be a mapping"),
        ("title: [a]\naxes: {storage: [dax]}\nprogram: [{meminfo: {}}]\n", 1, "title must be one word or number"),
        ("title: a\naxes: {storage: [dax]}\nneeds: {ram: 1}\nprogram: [{meminfo: {}}]\n", 3, "unknown key 'ram' in needs"),
        (
            "title: a\naxes: {storage: [dax]}\nneeds: {kernel_flavour: fat}\nprogram: [{meminfo: {}}]\n",
            3,
            "unknown kernel_flavour 'fat'; accepted: full",
        ),
        (
            "title: a\naxes: {storage: [dax]}\nneeds: {ivshmem: yes}\nprogram: [{meminfo: {}}]\n",
            3,
            "ivshmem is 'yes'; accepted: true, false",
        ),
        (
            "title: a\naxes: {storage: [dax]}\nclaim: it_work\nprogram: [{meminfo: {}}]\n",
            3,
            "has no claim 'it_work'; did you mean it_works?",
        ),
    ],
)
def test_a_file_that_is_no_case_is_refused_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        read_plans(text, "c.yaml", CLAIMS)
    assert (caught.value.where, problem in caught.value.problem) == (f"c.yaml:{line}", True), str(caught.value)


def test_a_character_that_yaml_does_not_have_is_refused() -> None:
    with pytest.raises(CaseError, match=r"not YAML: .*special characters"):
        read_plans("title: a\x00\n", "c.yaml", CLAIMS)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot read the file"):
        load_plans(tmp_path / "missing.yaml")


# ---- complaints about a step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("pwrit: {file: f}", "unknown operation 'pwrit'; did you mean pwrite?"),
        ("process: main", "a step has exactly one operation, this one has none; beside it: process, start, expect, id"),
        ("{fsync: {file: f}, close: {name: f}}", "a step has exactly one operation, this one has fsync, close"),
        ("fsync: {fil: f}", "unknown key 'fil' in fsync; did you mean file?"),
        ("pread: {file: f, offset: 0}", "pread needs the argument 'length'; it takes file, offset, length"),
        ("pread: {file: f, offset: 0, length: 4K}", "length of pread: '4K' is not a size"),
        ("pread: {file: f, offset: 0, length: -1}", "length of pread is -1: it cannot be negative"),
        ("pread: {file: f, offset: 0, length: [1]}", "length of pread must be one word or number"),
        ("pread: {file: f, offset: 0, length: $size}", "unknown parameter $size: this variant's axes do not give it"),
        ("open: {name: g, path: a, flags: rdwr}", "flags of open must be a list of words such as [rdonly]"),
        ("open: {name: g, path: a, flags: [rdrw]}", "unknown word 'rdrw' for flags of open; did you mean rdwr?"),
        ("open: {name: G, path: a}", "'G' is not a name"),
        ("lseek: {file: f, offset: 0, whence: start}", "unknown word 'start' for whence of lseek"),
        ("set_xflags: {file: f, dax: yes}", "dax of set_xflags is 'yes'; accepted: true, false"),
        ("preadv: {file: f, offset: 0, buffers: 4KiB}", "buffers of preadv, a list of {length: ...}, must be a list"),
        ("preadv: {file: f, offset: 0, buffers: [{shift: 1}]}", "an element of buffers of preadv needs the argument 'length'"),
        ("io_uring_setup: {name: r, entries: 4KiB}", "entries of io_uring_setup is '4KiB': write a plain number"),
        ("{fsync: {file: f}, expect: {return: 0}}", "unknown key 'return' in expect; did you mean returns?"),
        ("{fsync: {file: f}, expect: {}}", "a pin has exactly one of returns, errno, signal, blocked"),
        ("{fsync: {file: f}, expect: {returns: 0, errno: EIO}}", "a pin has exactly one of"),
        ("{fsync: {file: f}, expect: {errno: EINVALID}}", "unknown errno 'EINVALID'; did you mean EINVAL?"),
        ("{fsync: {file: f}, expect: {errno: 22}}", "unknown errno '22'; accepted: a name as errno(3)"),
        ("{fsync: {file: f}, expect: {errno: ENOTSUP}}", "unknown errno 'ENOTSUP'; write EOPNOTSUPP"),
        ("{fsync: {file: f}, expect: {signal: SIGBUSS}}", "unknown signal 'SIGBUSS'; did you mean SIGBUS?"),
        ("{fsync: {file: f}, expect: {returns: many}}", "returns: 'many' is not a size"),
        ("{fsync: {file: f}, expect: {disk: {returns: 0}}}", "expect speaks of disk, but the axis storage has only dax"),
        ("{fsync: {file: f}, expect: {dsk: {returns: 0}}}", "unknown key 'dsk' in expect; did you mean disk?"),
        (
            "{fsync: {file: f}, expect: [{when: {region: nvdimm}, returns: 0}]}",
            "when names the value 'nvdimm', which the axis 'region' does not",
        ),
        ("{fsync: {file: f}, expect: word}", "expect must be a mapping"),
    ],
)
def test_a_step_that_cannot_be_meant_is_refused_with_its_line(step: str, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        only(f"  - {step}\n")
    assert (caught.value.where, problem in caught.value.problem) == ("cases/family/sample.yaml:5", True), str(caught.value)


# ---- claims and families ---------------------------------------------------------------------------------------------

REGISTRY = """\
sources: {thread: "a list, a day"}
claims:
  - {id: first, family: splice, words: It works., source: thread, otherwise: never did}
"""


def test_the_registry_of_claims_is_read() -> None:
    claim = read_claims(REGISTRY, "claims.yaml")["first"]
    assert (claim.family, claim.words, claim.source, claim.otherwise) == ("splice", "It works.", "a list, a day", Status.NEVER_DID)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("otherwise: never did", "otherwise: never", "unknown word 'never' for otherwise; did you mean never did?"),
        (", otherwise: never did", "", "the claim 'first' needs exactly one of otherwise and not_reproducible"),
        ("never did", "never did, not_reproducible: why", "the claim 'first' needs exactly one of otherwise and not_reproducible"),
        ("source: thread", "source: tread", "no source 'tread' under sources; did you mean thread?"),
        ("id: first", "id: First", "'First' is not a name"),
        ("words: It works., ", "", "a claim needs the key 'words'"),
        ("family", "famly", "unknown key 'famly' in a claim; did you mean family?"),
    ],
)
def test_a_claim_that_cannot_be_meant_is_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(CaseError) as caught:
        read_claims(REGISTRY.replace(old, new), "claims.yaml")
    assert problem in str(caught.value)


def test_a_claim_is_registered_once() -> None:
    with pytest.raises(CaseError, match=r"claims.yaml:4: the claim 'first' is registered twice"):
        read_claims(REGISTRY + REGISTRY.splitlines(keepends=True)[2], "claims.yaml")


def test_a_family_says_what_does_not_apply() -> None:
    family = read_family("title: T\ndoes_not_apply:\n  - {storage: [dax, disk], reason: why}\n", "cases/splice/family.yaml")
    ((condition, reason),) = family.does_not_apply
    assert (family.name, family.title, reason) == ("splice", "T", "why")
    assert condition.matches({"storage": "disk"})
    assert not condition.matches({"storage": "node", "region": "e820"})


def test_the_registry_in_the_tree_is_read() -> None:
    assert load_claims(Path(__file__).parents[3] / "cases" / "claims.yaml")


# ---- expected console lines ------------------------------------------------------------------------------------------

LINE = "{pattern: 'at foo', reason: a false alarm, since: '6.1', before: '6.3', expires: '2027-06-30'}"


def test_expected_console_lines_have_a_reason_a_range_and_a_day() -> None:
    (entry,) = read_expected(f"expected:\n  - {LINE}\n", "console.yaml")
    assert entry == ExpectedLine("at foo", "a false alarm", (6, 1), (6, 3), "2027-06-30")
    assert entry.covers("WARNING: at foo+0x1", "6.2.1-debian", "2027-06-29")
    assert not entry.covers("WARNING: at foo+0x1", "6.3.0", "2027-06-29")
    assert not entry.covers("WARNING: at foo+0x1", "6.2.1", "2027-06-30")
    assert not entry.covers("WARNING: at bar", "6.2.1", "2027-06-29")


def test_an_expected_line_may_be_limited_to_some_stacks() -> None:
    (entry,) = read_expected(f"expected:\n  - {LINE[:-1]}, stack: '-> (raw|sector) ->'}}\n", "console.yaml")
    assert entry.covers("at foo", "6.2.1", "2027-01-01", "nvdimm 256MiB -> sector -> ext4 -> dax=always")
    assert not entry.covers("at foo", "6.2.1", "2027-01-01", "nvdimm 256MiB -> fsdax map=mem -> ext4 -> dax=always")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("'at foo'", "'at foo', stack: 'e820 ('"), "console.yaml:2: the pattern 'e820 \\(' is no regular expression"),
        (("'at foo'", "'at ('"), "console.yaml:2: the pattern 'at \\(' is no regular expression"),
        (("'6.1'", "six"), "'six' is no kernel version; write the first two numbers, such as 6.12"),
        (("'2027-06-30'", "soon"), "expires is 'soon'; a day is written 2027-06-30"),
        ((", expires: '2027-06-30'", ""), "expires"),
        (("reason:", "because:"), "because"),
    ],
)
def test_an_expected_line_that_cannot_be_meant_is_refused(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(CaseError, match=complaint):
        read_expected(f"expected:\n  - {LINE.replace(*change)}\n", "console.yaml")


def test_the_nearest_list_of_expected_lines_is_taken_and_none_is_none(tmp_path: Path) -> None:
    assert load_nearest_expected(tmp_path / "fam/one.yaml") == ()
    (tmp_path / "console.yaml").write_text(f"expected:\n  - {LINE}\n")
    assert len(load_nearest_expected(tmp_path / "fam/one.yaml")) == 1


# ---- known deviations ------------------------------------------------------------------------------------------------

DEVIATION = "{clause: C-RW-06, item: splice/tee, variant: dax_always, since: '6.1', before: '6.3', reference: a bug report}"


def test_a_known_deviation_has_a_clause_an_item_a_range_and_a_reference() -> None:
    (entry,) = read_known(f"deviations:\n  - {DEVIATION}\n", "deviations.yaml")
    assert entry == KnownDeviation("C-RW-06", "splice/tee", "dax_always", (6, 1), (6, 3), "a bug report")
    (wide,) = read_known("deviations: [{clause: C-RW-06, item: splice/tee, since: '6.1', reference: x}]", "deviations.yaml")
    assert (wide.variant, wide.before) == ("", None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("C-RW-06", "C-AUDIT-06"), "the model has no clause 'C-AUDIT-06'; .*C-AUDIT-05"),
        (("C-RW-06", "C-RW-6"), "deviations.yaml:2: the model has no clause 'C-RW-6'; .*C-RW-06"),
        (("splice/tee", "tee"), "deviations.yaml:2: item is 'tee'; a family and a case are written splice/tee"),
        (("dax_always", "'dax_('"), r"deviations.yaml:2: the pattern 'dax_\(' is no regular expression: missing \)"),
        (("'6.1'", "six"), "'six' is no kernel version; write the first two numbers, such as 6.12"),
        ((", reference: a bug report", ""), "reference"),
        (("reference:", "link:"), "link"),
    ],
)
def test_a_known_deviation_that_cannot_be_meant_is_refused(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(CaseError, match=complaint):
        read_known(f"deviations:\n  - {DEVIATION.replace(*change)}\n", "deviations.yaml")


def test_the_nearest_list_of_known_deviations_is_taken_and_none_is_none(tmp_path: Path) -> None:
    assert load_nearest_known(tmp_path / "fam/one.yaml") == ()
    (tmp_path / "splice").mkdir()
    (tmp_path / "splice/tee.yaml").touch()
    (tmp_path / "deviations.yaml").write_text(f"deviations:\n  - {DEVIATION}\n")
    assert len(load_nearest_known(tmp_path / "fam/one.yaml")) == 1


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ("splice/te", "there is no case 'splice/te' in .*; did you mean splice/tee\\? accepted: splice/tee, splice/test_python$"),
        ("splice/family", "there is no case 'splice/family' in "),
        ("splic/tee", "there is no case 'splic/tee' in .*; did you mean splice\\? accepted: futex, splice$"),
    ],
)
def test_a_known_deviation_of_a_case_that_is_not_there_is_refused_by_name(tmp_path: Path, item: str, complaint: str) -> None:
    for name in ("splice/tee.yaml", "splice/family.yaml", "futex/family.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "splice/test_more.py").write_text("def test_python(run_program):\n    pass\n")
    (tmp_path / "deviations.yaml").write_text(f"deviations:\n  - {DEVIATION.replace('splice/tee', 'splice/test_python')}\n")
    assert len(load_nearest_known(tmp_path / "fam/one.yaml")) == 1
    (tmp_path / "deviations.yaml").write_text(f"deviations:\n  - {DEVIATION.replace('splice/tee', item)}\n")
    with pytest.raises(CaseError, match=r"deviations\.yaml:2: " + complaint):
        load_nearest_known(tmp_path / "fam/one.yaml")


def test_a_fact_that_is_probed_must_be_one_of_the_models() -> None:
    with pytest.raises(CaseError, match="the model has no fact 'splice_to_pip'; did you mean splice_to_pipe"):
        sample("  - drop_caches:\n", "title: t\nprobes: splice_to_pip\naxes: {storage: [dax]}\n")


# ---- kernel options --------------------------------------------------------------------------------------------------

XDP = "  - xdp_socket: {name: x}\n"


def needing(text: str) -> str:
    return HEAD + f"needs: {{kernel_options: {text}}}\n"


def test_a_case_names_the_kernel_options_that_it_needs() -> None:
    assert sample(XDP, needing("[CONFIG_XDP_SOCKETS]")).needs.kernel_options == ("CONFIG_XDP_SOCKETS",)
    assert sample(XDP, needing("CONFIG_XDP_SOCKETS")).needs.kernel_options == ("CONFIG_XDP_SOCKETS",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[CONFIG_XDP_SOCKET]", "unknown kernel option 'CONFIG_XDP_SOCKET'; did you mean CONFIG_XDP_SOCKETS? accepted: CONFIG_BLK_DEV_DM"),
        ("[XDP_SOCKETS]", "unknown kernel option 'XDP_SOCKETS'; did you mean CONFIG_XDP_SOCKETS?"),
        ("[CONFIG_XDP_SOCKETS, {a: b}]", "kernel_options must be one word or number"),
    ],
)
def test_a_kernel_option_that_nobody_knows_is_refused_with_the_nearest(text: str, words: str) -> None:
    with pytest.raises(CaseError) as caught:
        sample(XDP, needing(text))
    assert str(caught.value).startswith("cases/family/sample.yaml:3: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (XDP, "CONFIG_XDP_SOCKETS"),
        ("  - rdma_open: {name: d}\n", "CONFIG_RDMA_RXE, CONFIG_INFINIBAND_USER_ACCESS"),
    ],
)
def test_an_operation_that_a_kernel_may_lack_must_be_declared(step: str, options: str) -> None:
    with pytest.raises(CaseError) as caught:
        sample(step)
    assert str(caught.value).startswith("cases/family/sample.yaml:5: ")
    assert f"is not there on a kernel without {options}: write needs: {{kernel_options: [{options}]}}" in str(caught.value)


# ---- watch -----------------------------------------------------------------------------------------------------------

MOVING = "    id: move\n  - drop_caches:\n  - drop_caches:\n    id: look\n"


def watching(entry: str) -> str:
    return f"title: t\nwatch:\n  - {entry}\naxes: {{storage: [dax]}}\n"


def test_a_case_names_the_ways_of_bytes_that_it_watches() -> None:
    plan = next(iter(plans("  - drop_caches:\n" + MOVING, watching("{path: here to there, moves: move, read: look}")).values()))
    assert plan.watches == (Watch("here to there", 1, 3),)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{path: a, moves: move, read: lok}", r"\.yaml:3: no step has the id 'lok'; did you mean look\?"),
        ("{path: a, moves: move}", "an entry of watch needs the key 'read'"),
        ("{path: a, moves: move, read: look, by: x}", "unknown key 'by' in an entry of watch"),
        ("{path: a, moves: look, read: move}", r"\.yaml:3: what is watched is moved, then overwritten by another step, then read"),
        ("{path: a, moves: look, read: look}", "what is watched is moved, then overwritten by another step, then read"),
    ],
)
def test_a_way_that_cannot_be_watched_is_refused_by_its_line(entry: str, complaint: str) -> None:
    with pytest.raises(CaseError, match=complaint):
        sample("  - drop_caches:\n" + MOVING, watching(entry))
