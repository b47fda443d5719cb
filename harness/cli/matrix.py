"""What a CI system fans out: a job for each kernel and shard, with what it may cache."""

import argparse
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.cli.options import add_artifacts, add_kernel
from harness.cli.words import progress
from harness.errors import UsageError
from harness.host.cache import content_key
from harness.image.bundle import entry_names, image_store
from harness.image.catalog import Catalog, KernelChoice, choose_kernel, load_catalog
from harness.record.facttable import FACTS_DIR
from harness.record.runs import LOG, find_run
from harness.report.durations import FILE, measure_durations, read_log, write_durations
from harness.report.rows import read_rows
from harness.report.status import ALL_CONFORM

_FORMS = ("json", "github", "gitlab")
#: How a kernel of a path would get to the computers of the jobs, nobody knows.
_NO_PATH = "a job of a CI system knows kernels by their names in images/kernels.yaml only"


@dataclass(frozen=True)
class Job:
    """One job. ``slug``: its name as a file's; ``arguments``: what ``pytest cases`` gets; ``cache_paths``: a path a line."""

    name: str
    slug: str
    kernel: str
    shard: str
    arguments: str
    cache_key: str
    cache_paths: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=int, metavar="N", help="into how many parts the items of a kernel are divided")
    add_kernel(parser, repeatable=True)
    parser.add_argument(
        "--form",
        choices=_FORMS,
        default="json",
        help="JSON, a line for GitHub's $GITHUB_OUTPUT, or a child pipeline for GitLab (default: json)",
    )
    parser.add_argument(
        "--record",
        metavar="RUN",
        help="instead: keep how long the items of a run took, one that made its templates, in facts/durations.tsv",
    )
    parser.add_argument("--facts", type=Path, default=FACTS_DIR, metavar="DIR", help="where that table is kept (default: the project's)")
    parser.add_argument("words", nargs="*", metavar="-- WORD", help="more words for pytest, such as -- --full --audit full")
    add_artifacts(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    if (chosen.shards is None) == (chosen.record is None):
        raise UsageError("say into how many shards (--shards N), or of which run the durations are to be kept (--record RUN)")
    if chosen.record is not None:
        return _record(chosen)
    if chosen.shards < 1:
        raise UsageError(f"--shards is {chosen.shards}: 1 or more")
    catalog = load_catalog()
    kernels = [choose_kernel(name, catalog) for name in chosen.kernel or [catalog.default_kernel]]
    if any(choice.path is not None for choice in kernels):
        raise UsageError(f"--kernel {next(choice.name for choice in kernels if choice.path is not None)}: {_NO_PATH}")
    jobs = list(make_jobs([choice.name for choice in kernels], chosen.shards, chosen.words, catalog))
    print(_FORM[chosen.form](jobs))
    return ALL_CONFORM


def _record(chosen: argparse.Namespace) -> int:
    stored = find_run(chosen.artifacts, chosen.record)
    log = stored.folder / LOG
    found = measure_durations(read_rows(stored.folder), read_log(log.read_text() if log.exists() else ""))
    if not found:
        raise UsageError(f"run {stored.identity.id} does not say how long its items took")
    write_durations(chosen.facts / FILE, found)
    progress(f"written: {chosen.facts / FILE}, {len(found)} storage stacks")
    return ALL_CONFORM


def make_jobs(kernels: Sequence[str], shards: int, words: Sequence[str], catalog: Catalog) -> Iterator[Job]:
    """Yield the jobs, kernel by kernel."""
    for kernel in kernels:
        key, paths = _cache_of(kernel, catalog)
        for number in range(1, shards + 1):
            shard = f"{number}/{shards}"
            arguments = shlex.join(["--kernel", kernel, "--shard", shard, *words])
            yield Job(f"{kernel} {shard}", f"{kernel}-{number}-of-{shards}", kernel, shard, arguments, key, paths)


def _cache_of(kernel: str, catalog: Catalog) -> tuple[str, str]:
    """Return the name of what the images of a kernel and of its flavours are kept under, and their folders, a path a line."""
    names = [kernel, *(other.name for other in catalog.kernels.values() if other.base == kernel)]
    entries = list(dict.fromkeys(entry for name in names for entry in entry_names(KernelChoice(name), catalog)))
    return f"pmem-harness-{kernel}-{content_key(*entries)}", "\n".join(_at_home(image_store() / entry) for entry in entries)


def _at_home(path: Path) -> str:
    """A path that means the same on a computer whose users' folders lie elsewhere."""
    home = os.path.expanduser("~")
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _json(jobs: Sequence[Job]) -> str:
    return json.dumps({"include": [asdict(job) for job in jobs]}, indent=1)


def _github(jobs: Sequence[Job]) -> str:
    return "matrix=" + json.dumps({"include": [asdict(job) for job in jobs]})


#: What a job of a child pipeline begins with: it has nothing of the file that started it.
_PACKAGES = "apt-get update && apt-get install --yes --no-install-recommends ca-certificates git python3 python3-venv"
_REQUIREMENTS = "python3 -m venv .venv && .venv/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements.lock"


def _gitlab(jobs: Sequence[Job]) -> str:
    """A child pipeline, whose last job merges. GitLab caches only what lies in the project's folder."""
    pipeline: dict[str, object] = {
        "default": {"image": "debian:trixie", "before_script": [_PACKAGES]},
        "stages": ["cases", "merge"],
        "variables": {"PMEM_HARNESS_CACHE": "$CI_PROJECT_DIR/.cache", "PMEM_HARNESS_ACCEL": "tcg"},
    }
    for job in jobs:
        pipeline[job.name] = {
            "stage": "cases",
            "script": [f"./bootstrap cases -n 2 --artifacts shards/{job.slug} {job.arguments}"],
            "cache": {"key": job.cache_key, "paths": [".cache/images/"]},
            "artifacts": {"when": "always", "paths": [f"shards/{job.slug}/"]},
        }
    pipeline["merge"] = {
        "stage": "merge",
        "when": "always",
        "script": [_REQUIREMENTS, ".venv/bin/python -m harness merge shards/*/"],
        "artifacts": {"when": "always", "paths": ["artifacts/"]},
    }
    return json.dumps(pipeline, indent=1)  # which is YAML, too


_FORM = {"json": _json, "github": _github, "gitlab": _gitlab}
