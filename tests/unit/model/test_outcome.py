"""Reading what the agent says: every field is what the protocol calls it, or the observation is refused with its step and field."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import AgentError
from harness.model.outcome import How, RunKind, observations_from

RECORDED = Path(__file__).parents[2] / "recorded" / "observations.jsonl"

#: A page read: a tagged word, zeroes, and bytes of nobody.
READ: dict[str, Any] = {
    "step": 0,
    "how": "returned",
    "value": 20,
    "data": [[0, 8, "tag", 3, 16], [8, 10, "zero"], [18, 2, "raw", "6162"]],
}
SEEN: dict[str, Any] = {
    "step": 1,
    "how": "returned",
    "value": 0,
    "resident": "0110",
    "frames": [0, 77],
    "minor_faults": 2,
    "attributes": {"major_faults": 0, "vm_flags": "rd wr"},
}


def document(*entries: Any) -> dict[str, Any]:
    return {"format": 1, "steps": list(entries)}


def test_what_the_agent_says_is_read_field_by_field() -> None:
    read, seen, failed, died, blocked = observations_from(
        document(
            READ,
            SEEN,
            {"step": 2, "how": "failed", "errno": "E524"},
            {"step": 3, "how": "signal", "signal": "SIGBUS"},
            {"step": 4, "how": "blocked", "attributes": {"state": "S"}},
        )
    )
    assert [(run.offset, run.length, run.kind) for run in read.data or ()] == [
        (0, 8, RunKind.TAG),
        (8, 10, RunKind.ZERO),
        (18, 2, RunKind.RAW),
    ]
    assert (read.data or ())[0].writer == 3
    assert (seen.resident, seen.frames, seen.minor_faults, seen.attribute("vm_flags")) == ("0110", (0, 77), 2, "rd wr")
    assert (failed.errno, died.signal, blocked.how, blocked.number("state")) == ("E524", "SIGBUS", How.BLOCKED, None)


def test_every_recorded_observation_is_still_read() -> None:
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert len(lines) > 50
    for line in lines:
        assert len(observations_from(line["observations"])) == len(line["program"])


BROKEN = [
    # what makes an observation one
    ("value", None, "the observation of step 0 is returned and has no value"),
    ("errno", "EIO", "the observation of step 0 is returned and yet has the field errno"),
    ("signal", "SIGBUS", "the observation of step 0 is returned and yet has the field signal"),
    ("how", "sang", "the observation of step 0: how is 'sang', not one of returned, failed"),
    ("how", None, "how is None, not one of"),
    ("how", ["returned"], r"how is \['returned'\], not one of"),
    ("step", "0", "observation 0: step is '0', not the number of a step"),
    ("step", True, "observation 0: step is True, not the number of a step"),
    ("step", -1, "observation 0: step is -1, not the number of a step"),
    ("resident_pages", 1, "the observation of step 0 has the unknown field 'resident_pages'"),
    # types
    ("value", True, "value is True, not what a call returns"),
    ("value", "20", "value is '20', not what a call returns"),
    ("value", 20.0, "value is 20.0, not what a call returns"),
    ("value", -5, "value is -5, not what a call returns"),
    ("resident", "012", "resident is '012', not one 0 or 1 a page"),
    ("resident", [0, 1], r"resident is \[0, 1\], not one 0 or 1 a page"),
    ("resident", "01\n", "resident is"),
    ("frames", [1, -1], r"frames is \[1, -1\], not a list of frame numbers"),
    ("frames", [True], r"frames is \[True\], not a list of frame numbers"),
    ("frames", ["7"], "not a list of frame numbers"),
    ("frames", 7, "frames is 7, not a list of frame numbers"),
    ("minor_faults", -1, "minor_faults is -1, not a number of faults"),
    ("minor_faults", False, "minor_faults is False, not a number of faults"),
    ("attributes", [], r"attributes is \[\], not a mapping"),
    ("attributes", {"size": None}, "the attribute size is None, not a number or a word"),
    ("attributes", {"size": True}, "the attribute size is True, not a number or a word"),
    ("attributes", {"size": 1.5}, "the attribute size is 1.5, not a number or a word"),
    # data
    ("data", {}, "data is {}, not a list of runs"),
    ("data", [[0, 20]], r"data\[0\] is \[0, 20\], not \[offset, length, zero\]"),
    ("data", [[0, 20, "zeros"]], r"data\[0\] is"),
    ("data", [["0", 20, "zero"]], r"data\[0\] is"),
    ("data", [[0, 0, "zero"], [0, 20, "zero"]], r"data\[0\] is"),
    ("data", [[0, True, "zero"]], r"data\[0\] is"),
    ("data", [[0, 20, "tag", 0, 0]], r"data\[0\] is"),
    ("data", [[0, 20, "tag", 1 << 14, 0]], r"data\[0\] is"),
    ("data", [[0, 20, "tag", 1, -8]], r"data\[0\] is"),
    ("data", [[0, 20, "tag", 1]], r"data\[0\] is"),
    ("data", [[0, 20, "raw", "6162"]], r"data\[0\] is"),
    ("data", [[0, 2, "raw", "61zz"]], r"data\[0\] is"),
    ("data", [[4, 20, "zero"]], r"data\[0\] begins at 4, the run before it ends at 0"),
    ("data", [[0, 8, "zero"], [12, 8, "zero"]], r"data\[1\] begins at 12, the run before it ends at 8"),
    ("data", [[0, 8, "zero"], [4, 16, "zero"]], r"data\[1\] begins at 4, the run before it ends at 8"),
    ("data", [[0, 8, "zero"]], "the observation of step 0: 8 bytes of data, and the call returned 20"),
]


@pytest.mark.parametrize(("field", "value", "said"), BROKEN, ids=[f"{field}={value}"[:40] for field, value, _ in BROKEN])
def test_what_the_protocol_does_not_allow_is_refused_with_step_and_field(field: str, value: Any, said: str) -> None:
    entry = copy.deepcopy(READ) | {field: value}
    with pytest.raises(AgentError, match=said):
        observations_from(document(entry))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"step": 3, "how": "failed"}, "the observation of step 3 is failed and has no errno"),
        ({"step": 3, "how": "failed", "errno": 5}, "errno is 5, not the name of an error"),
        ({"step": 3, "how": "failed", "errno": "I/O error"}, "errno is 'I/O error', not the name of an error"),
        ({"step": 3, "how": "failed", "errno": "EIO", "value": 0}, "is failed and yet has the field value"),
        ({"step": 3, "how": "signal"}, "the observation of step 3 is signal and has no signal"),
        ({"step": 3, "how": "signal", "signal": 11}, "signal is 11, not the name of a signal"),
        ({"step": 3, "how": "signal", "signal": "bus error"}, "signal is 'bus error', not the name of a signal"),
        ({"step": 3, "how": "blocked", "value": 0}, "is blocked and yet has the field value"),
        ([], r"observation 0 is \[\], not a mapping"),
    ],
)
def test_an_ending_has_its_own_evidence_and_no_other(entry: Any, said: str) -> None:
    with pytest.raises(AgentError, match=said):
        observations_from(document(entry))


def test_a_document_of_another_format_or_without_steps_is_refused() -> None:
    with pytest.raises(AgentError, match="the observations have format 2, this harness reads 1"):
        observations_from({"format": 2, "steps": []})
    with pytest.raises(AgentError, match="the observations have no list of steps, but None"):
        observations_from({"format": 1})
