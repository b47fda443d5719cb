"""Why is there no DAX here: of a storage stack in a guest that is booted for it, or of somebody's machine over SSH."""

import argparse
from pathlib import Path

from harness.cli.stacks import choose_stack
from harness.cli.words import progress
from harness.errors import GuestError, UsageError, first_line
from harness.guest.doctor import examine
from harness.guest.link import GuestCommand
from harness.guest.session import GuestSession
from harness.guest.ssh import Shell
from harness.guest.user_ssh import connected_as_user, parse_address
from harness.host.deadline import Deadline
from harness.lease.boot import make_booter
from harness.lease.kept import FOLDER, LogKeeper
from harness.lease.options import GuestOptions
from harness.machine.arguments import parse_kernel_arguments
from harness.model.dax.links import Diagnosis, diagnose
from harness.report.diagnosis import diagnosis_parts, diagnosis_status
from harness.report.tables import show

#: Where the logs are kept of a guest that did not come up.
NOT_EXAMINED = Path("artifacts") / FOLDER / "doctor"
#: What is made on a mounted volume of ours: a folder alone does not show how a file is mapped.
_PROBE = "doctor"
_CONNECT_S = 20.0
_LOOK_S = 60.0


def run(chosen: argparse.Namespace) -> int:
    if chosen.stack and chosen.at:
        raise UsageError("--stack looks at a guest and --at at a machine: one of the two")
    if chosen.stack:
        if chosen.path:
            raise UsageError("--stack looks at the volume of the stack: a path is for --at")
        return _in_guest(chosen)
    address = parse_address(chosen.at)
    with connected_as_user(address, Deadline.after(_CONNECT_S)) as ssh:
        return tell(ssh, chosen.path, Deadline.after(_LOOK_S))


def tell(shell: Shell, path: str | None, deadline: Deadline) -> int:
    """Print the diagnosis of a path, or of every place, and return the exit status."""
    diagnoses: list[Diagnosis] = []
    for evidence in examine(shell, path, deadline):
        if diagnoses:
            print()
        diagnoses.append(diagnose(evidence))
        show(*diagnosis_parts(diagnoses[-1]))
    return diagnosis_status(diagnoses)


def _in_guest(chosen: argparse.Namespace) -> int:
    stack, choice = choose_stack(chosen.stack, chosen.kernel)
    keeper = LogKeeper(NOT_EXAMINED)
    keeper.clear()
    options = GuestOptions(kernel_arguments=parse_kernel_arguments(chosen.kernel_args), keeper=keeper)
    with make_booter(lambda _: choice, progress, options)(stack, choice.name) as guest:
        path = _prepared(guest.session)
        assert guest.session.ssh is not None  # it was booted here
        return tell(guest.session.ssh, path, Deadline.after(_LOOK_S, guest.session.scale))


def _prepared(session: GuestSession) -> str:
    """Bring the stack as far as it comes, and return what is to be looked at: the folder, or the node where nothing could be mounted."""
    main = session.layout.volumes[0]
    try:
        session.refresh()
    except GuestError as error:
        progress(f"the stack does not come up as it was asked for: {first_line(str(error))}")
        return main.node
    if main.volume.mount is None:
        return main.node
    session.commands([GuestCommand(("sh", "-c", 'head -c 4096 /dev/zero > "$0"', f"{main.folder}/{_PROBE}"))])
    return main.folder
