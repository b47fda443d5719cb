"""A few words of the remote protocol of gdb: enough to write into a running guest's memory."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Debugger:
    """Attached to a guest, which stands still meanwhile."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def write(self, address: int, data: bytes) -> None:
        """Write ``data`` at a virtual address of the guest's kernel, write-protected or not."""
        answer = self.ask(f"M{address:x},{len(data):x}:{data.hex()}")
        assert answer == "OK", answer

    def ask(self, words: str) -> str:
        self._line.sendall(f"${words}#{sum(words.encode()) % 256:02x}".encode())
        said = b""
        while b"#" not in said or len(said) < said.index(b"#") + 3:
            chunk = self._line.recv(65536)
            assert chunk, f"the debugger's line was closed after {said!r}"
            said += chunk
        self._line.sendall(b"+")
        return said[said.index(b"$") + 1 : said.index(b"#")].decode()


@contextmanager
def attached(path: Path) -> Iterator[Debugger]:
    """Attach to the socket that ``--gdb`` makes; the guest goes on when this ends."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(path))
        debugger = Debugger(line)
        debugger.ask("?")
        yield debugger
        debugger.ask("D")
