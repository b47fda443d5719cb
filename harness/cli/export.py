"""A run in the forms that other programs read."""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.cli.options import add_artifacts
from harness.cli.words import cannot_write, progress
from harness.errors import UsageError
from harness.record.runs import LATEST, Identity, find_run
from harness.report.forms.exported import export_schema, json_lines
from harness.report.forms.junit import junit_xml
from harness.report.forms.kcidb import kcidb_report
from harness.report.forms.ktap import ktap_lines
from harness.report.rows import Row, read_rows
from harness.report.status import ALL_CONFORM

#: Each form, as what makes its text of a run.
FORMS: dict[str, Callable[[Identity, Sequence[Row]], Iterable[str]]] = {"junit": junit_xml, "jsonl": json_lines, "ktap": ktap_lines}
_KCIDB = "kcidb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="?", default=LATEST, metavar="RUN", help="as 'runs list' prints it, or its beginning (default: latest)"
    )
    parser.add_argument("--form", choices=[*FORMS, _KCIDB], help="JUnit's XML, JSON lines, KTAP, or a report for KernelCI's database")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the JSON lines, instead of a run")
    parser.add_argument("--origin", metavar="NAME", help="who sends a report to KernelCI's database, as agreed with them; for kcidb only")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: standard output)")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    text = json.dumps(export_schema(), indent=1) + "\n" if chosen.schema else _exported(chosen)
    if chosen.output is None:
        print(text, end="")
        return ALL_CONFORM
    try:
        chosen.output.write_text(text)
    except OSError as error:
        raise cannot_write(chosen.output, error) from error
    progress(f"written: {chosen.output}")
    return ALL_CONFORM


def _exported(chosen: argparse.Namespace) -> str:
    if chosen.form is None:
        raise UsageError(f"say in which form: --form {', '.join([*FORMS, _KCIDB])}")
    if (chosen.form == _KCIDB) != (chosen.origin is not None):
        raise UsageError("--form kcidb needs --origin NAME, and no other form takes it")
    if chosen.origin is not None and not re.fullmatch("[a-z0-9_]+", chosen.origin):
        raise UsageError(f"--origin {chosen.origin}: lower-case letters, digits and _ only")
    stored = find_run(chosen.artifacts, chosen.run)
    rows = read_rows(stored.folder)
    if not rows:
        raise UsageError(f"run {stored.identity.id} has no item")
    if chosen.form == _KCIDB:
        return "\n".join([*kcidb_report(stored.identity, rows, chosen.origin), ""])
    return "\n".join([*FORMS[chosen.form](stored.identity, rows), ""])
