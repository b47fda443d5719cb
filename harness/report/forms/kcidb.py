"""The report that KernelCI's database takes (kcidb-io, schema 5.3): each kernel a checkout and a build, each item a test."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from harness.record.runs import Identity
from harness.report.forms.outcome import Outcome, outcome_of
from harness.report.forms.text import printable
from harness.report.paragraph import describe_row
from harness.report.rows import Row

_VERSION = {"major": 5, "minor": 3}
#: The longest excerpt that the schema takes.
_EXCERPT = 16384
#: A test that the model cannot judge did not complete, by that schema, and says nothing of the kernel.
_STATUS = {
    Outcome.PASSED: "PASS",
    Outcome.KNOWN: "FAIL",
    Outcome.FAILED: "FAIL",
    Outcome.FLAKY: "FAIL",
    Outcome.UNDETERMINED: "ERROR",
    Outcome.BROKEN: "MISS",
    Outcome.UNAVAILABLE: "SKIP",
}


def kcidb_report(identity: Identity, rows: Sequence[Row], origin: str) -> Iterator[str]:
    """Yield one JSON document. ``origin``: who sends it (``[a-z0-9_]+``).

    A kernel from a package is no checkout of anybody's: its id has the exact release and the run, so that nobody else's is meant.
    """
    kernels = {_kernel(row): row for row in reversed(rows)}
    document = {
        "version": _VERSION,
        "checkouts": [{"id": _id(origin, identity, name), "origin": origin, "comment": name, "valid": True} for name in kernels],
        "builds": [_build(origin, identity, name, row) for name, row in kernels.items()],
        "tests": [_test(origin, identity, row) for row in rows],
    }
    yield json.dumps(document, indent=1)


def _kernel(row: Row) -> str:
    return f"{row.where.target.kernel} {row.guest.release}" if row.guest else row.where.target.kernel


def _id(origin: str, identity: Identity, name: str) -> str:
    return f"{origin}:{identity.id}:{name}"


def _build(origin: str, identity: Identity, name: str, row: Row) -> dict[str, Any]:
    packages = dict(row.guest.versions) if row.guest else {}
    return {
        "id": _id(origin, identity, name),
        "checkout_id": _id(origin, identity, name),
        "origin": origin,
        "architecture": "x86_64",
        "config_name": row.where.target.kernel,
        "misc": {"packages": packages, "kernel_arguments": row.where.target.arguments},
    }


def _test(origin: str, identity: Identity, row: Row) -> dict[str, Any]:
    outcome, judged, guest = outcome_of(row), row.judged, row.guest
    test: dict[str, Any] = {
        "id": _id(origin, identity, row.where.node_id),
        "build_id": _id(origin, identity, _kernel(row)),
        "origin": origin,
        "path": ".".join(re.sub(r"[^a-zA-Z0-9_-]", "_", part) for part in ("pmem_harness", row.where.path, row.where.variant_id)),
        "comment": row.where.title,
        "status": _STATUS[outcome],
        "duration": row.ended.seconds,
        "misc": {
            "outcome": str(outcome),
            "stack": row.where.stack.describe(),
            "ending": str(row.ended.ending),
            "verdict": str(judged.verdict) if judged else None,
            "known_deviation": (judged.reference or None) if judged else None,
            "clauses": list(judged.clauses) if judged else [],
            "harness": identity.commit,
        },
    }
    if guest is not None:
        test["environment"] = {"comment": f"QEMU {guest.qemu_version} under {guest.accelerator}"}
    if outcome is not Outcome.PASSED:
        test["log_excerpt"] = printable(describe_row(row))[:_EXCERPT]
    return test
