"""The saved guests that clones start from: list, verify, remove."""

import argparse
from datetime import datetime

from harness.cli.options import add_action, add_verbose
from harness.cli.words import progress, rounded
from harness.errors import UsageError
from harness.host import settings
from harness.lease.template import StoredTemplate, remove_template, stored_templates, template_damage, templates_limit_bytes
from harness.report.status import ALL_CONFORM, SOME_DEVIATE
from harness.report.tables import make_table, show
from harness.sizes import format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_action(actions, "list", list_templates, "list templates with their sizes, the one used last first")
    verify = add_action(actions, "verify", verify_templates, "read templates and compare them with their checksums")
    verify.add_argument("name", nargs="*", help="names as 'templates list' prints them (default: all)")
    add_verbose(verify)
    remove = add_action(actions, "remove", remove_templates, "remove templates; clones that run are not disturbed")
    remove.add_argument("name", nargs="*", help="names as 'templates list' prints them")
    remove.add_argument("--all", action="store_true", help="every template")
    add_verbose(remove)


def list_templates(_: argparse.Namespace) -> int:
    found = stored_templates()
    total, limit = sum(template.size_bytes for template in found), templates_limit_bytes()
    show(
        make_table(("template", "size", "used", "made of"), map(_row, found)),
        f"{len(found)} templates, {rounded(total)} of at most {format_size(limit)} in {settings.templates_root()}",
    )
    return ALL_CONFORM


def _row(template: StoredTemplate) -> tuple[str, ...]:
    used = datetime.fromtimestamp(template.used_s).strftime("%Y-%m-%d %H:%M")
    return template.name, rounded(template.size_bytes), used, "; ".join(template.made_of.values())


def verify_templates(chosen: argparse.Namespace) -> int:
    names = [template.name for template in stored_templates()]
    if unknown := [name for name in chosen.name if name not in names]:
        raise UsageError(f"no template {unknown[0]!r}; there are: {', '.join(names) or 'none'}")
    damaged = 0
    for name in chosen.name or names:
        damage = template_damage(settings.templates_root() / name)
        damaged += damage is not None
        print(f"{name:44} {'DAMAGED: ' + damage if damage else 'ok'}", flush=True)
    return SOME_DEVIATE if damaged else ALL_CONFORM


def remove_templates(chosen: argparse.Namespace) -> int:
    names = [template.name for template in stored_templates()] if chosen.all else chosen.name
    if not names and not chosen.all:
        raise UsageError("name the templates to remove ('templates list' prints them), or give --all")
    for name in names:
        remove_template(name, progress)
        progress(f"removed {name}")
    return ALL_CONFORM
