"""Looking at a machine over SSH without writing to it: files by pattern and what commands print, in one round trip of a POSIX shell."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.link import GuestFiles
from harness.guest.ssh import Shell
from harness.host.deadline import Deadline

#: What the shell is told first. Files are read without starting a program for each, and where folders really are one program says.
_PRELUDE = """
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export LC_ALL PATH
look() {
    folders=
    for f in "$@"; do
        if [ -d "$f" ]; then folders="$folders $f"
        elif [ -r "$f" ]; then
            printf '%s file %s\\n' $mark "$f"
            while IFS= read -r line || [ -n "$line" ]; do printf '%s\\n' "$line"; done < "$f"
        elif [ -e "$f" ]; then printf '%s closed %s\\n' $mark "$f"
        fi
    done 2>/dev/null
    [ -z "$folders" ] || { printf '%s folders%s\\n' $mark "$folders"; readlink -f $folders; }
}
"""


@dataclass(frozen=True)
class Output:
    """What a command printed, both streams, and its exit status."""

    status: int
    text: str

    def why(self, what: str) -> str:
        """Return why it says nothing of ``what``: the last line that it printed."""
        lines = self.text.strip().splitlines()
        return f"{what}: {lines[-1] if lines else f'exit status {self.status}'}"


@dataclass(frozen=True)
class Answers:
    """What a machine answered: files and folders, and outputs by the names of the questions."""

    files: GuestFiles
    outputs: Mapping[str, Output]


def look(shell: Shell, patterns: Sequence[str], questions: Mapping[str, str], deadline: Deadline) -> Answers:
    """Read the files that match ``patterns`` and run ``questions``, scripts for sh by name. None of them may write.

    Raises GuestError where the machine is lost, or its shell does not do as a POSIX shell does.
    """
    mark = f"@{secrets.token_hex(8)}"
    asked = [
        f"( {script}\n) 2>&1 </dev/null; status=$?; printf '\\n%s run %s %s\\n' $mark {name} $status" for name, script in questions.items()
    ]
    # A question's output is what stands before its mark, a file's content what stands behind its own.
    begins = [f"printf '%s begin {name}\\n' $mark\n{script}" for name, script in zip(questions, asked, strict=True)]
    script = "\n".join([f"mark={mark}", _PRELUDE, f"look {' '.join(patterns)}", *begins, "printf '%s end\\n' $mark", ""])
    # The words go in by standard input, so that it does not matter which shell the user has.
    said = shell.run(["sh", "-s"], deadline, stdin=script.encode(), check=False)
    if not said.stdout.endswith(f"{mark} end\n"):
        raise GuestError(f"sh ended with status {said.status} before it had said everything: {said.stderr.strip() or 'it printed nothing'}")
    return _answers(said.stdout, mark)


def _answers(text: str, mark: str) -> Answers:
    files: dict[str, str | None] = {}
    folders: dict[str, str] = {}
    outputs: dict[str, Output] = {}
    for section in re.split(rf"^{mark} ", text, flags=re.M)[1:]:
        head, _, body = section.partition("\n")
        kind, _, name = head.partition(" ")
        if kind == "folders":
            folders.update(zip(name.split(), body.split(), strict=True))
        elif kind == "file":
            files[name] = body
        elif kind == "closed":
            files[name] = None
        elif kind == "begin":
            outputs[name] = Output(0, body)
        elif kind == "run":
            name, _, status = name.partition(" ")
            outputs[name] = Output(int(status), outputs[name].text)
    return Answers(GuestFiles(files, folders, {}), outputs)
