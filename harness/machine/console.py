"""The console follower: drains a guest's serial line from its first byte and watches for the kernel's complaints."""

import contextlib
import select
import socket
import threading
import time
from pathlib import Path

from harness.host.deadline import Deadline, wait_until
from harness.model.complaint import Report, find_report

#: How long the follower may leave what has arrived unread.
_DRAIN_S = 1.0
_DRAIN_ROUNDS = 5
#: How the guest's init begins the lines in which it says how far it has come.
MILESTONE = "pmem-harness: "


class Console:
    """A guest's serial line. A thread drains it into ``path`` from the first byte: an unread console blocks the guest in printk.

    Leave the ``with`` only after QEMU has ended (or when the rest does not matter): it closes the line.
    """

    def __init__(self, line: socket.socket, path: Path) -> None:
        self._line = line
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._lock = threading.Lock()
        self._length = 0
        self._partial = b""
        self._at_end = False
        self._reports: list[Report] = []
        self._milestones: dict[str, float] = {}
        self._thread = threading.Thread(target=self._drain, name=f"console {path}", daemon=True)

    def __enter__(self) -> "Console":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A shutdown makes the thread's read return what is left, and then the end.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()
        self._file.close()

    def reports(self, since: int = 0) -> tuple[Report, ...]:
        """Return the kernel's complaints from position ``since`` on, in order."""
        with self._lock:
            return tuple(report for report in self._reports if report.position >= since)

    def mark(self) -> int:
        """Return the present position, for ``since`` and ``reports``. A line that is being printed belongs to what follows."""
        with self._lock:
            return self._length - len(self._partial)

    def since(self, mark: int) -> str:
        """Return everything that was printed from ``mark`` on: what it shows, ``reports`` knows."""
        with self._lock, self._path.open("rb") as file:
            file.seek(mark)
            return _text(file.read())

    def tail(self, lines: int = 40) -> str:
        """Return the last ``lines`` lines."""
        return "\n".join(self.since(max(0, self.mark() - 64 * 1024)).splitlines()[-lines:])

    def milestones(self) -> dict[str, float]:
        """Return the lines that the guest's init prints about itself (``pmem-harness: ...``) with the monotonic second of arrival."""
        with self._lock:
            return dict(self._milestones)

    def send(self, text: str) -> None:
        """Type ``text`` on the console. Raises OSError when QEMU is gone."""
        self._line.sendall(text.encode())

    def is_drained(self) -> bool:
        """Whether what QEMU hands over is read: an unread console stops the guest, and looks as if that hung by itself."""
        if not self._thread.is_alive():
            return self._at_end
        poller = select.poll()
        poller.register(self._line, select.POLLIN)
        for _ in range(_DRAIN_ROUNDS):
            with self._lock:
                before = self._length
            # A follower that is alive takes what is there within a moment.
            if wait_until(lambda: not poller.poll(0), Deadline.after(_DRAIN_S)):
                return True
            with self._lock:
                if self._length == before:
                    return False
        return True  # it is read, and the guest prints faster than that

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until QEMU closed the line and all of it is drained; False when ``timeout_s`` passed first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _drain(self) -> None:
        while True:
            try:
                # What was read stays there until it was taken: whoever sees nothing to be read sees all that was said.
                chunk = self._line.recv(65536, socket.MSG_PEEK)
            except OSError:
                chunk = b""
            if not chunk:
                break
            self._take(chunk)
            with contextlib.suppress(OSError):
                self._line.recv(len(chunk))
        # What a dying guest printed last need not end with a line end.
        self._take(b"\n" if self._partial else b"", printed=False)
        self._at_end = True

    def _take(self, chunk: bytes, printed: bool = True) -> None:
        with self._lock:
            start = self._length - len(self._partial)
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            self._length += len(chunk) if printed else 0
            for line in lines:
                text = _text(line).strip()
                kind = find_report(text)
                if kind is not None:
                    self._reports.append(Report(kind, text, start))
                elif text.startswith(MILESTONE):
                    self._milestones.setdefault(text, time.monotonic())
                start += len(line) + 1
            # Last: a full disk must not keep us from seeing what the kernel complains about.
            if printed:
                self._file.write(chunk)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r", "")
