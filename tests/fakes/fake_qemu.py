#!/usr/bin/env python3
"""A QEMU that only talks: it speaks QMP and prints a scripted console. The file it gets as ``-kernel`` is its script.

The script is JSON: steps under ``quiet`` (and ``verbose``, played where the kernel command line asks for a verbose boot; else the
same) once QMP says ``cont``, and under ``sysrq`` by key. Steps: ["console", text], ["event", name, data], ["stderr", text],
["exit", status], ["signal", number] (to itself), ["eat", MiB] (take that much memory), ["mute"] (QMP never answers again).
``refused`` lists QMP commands that fail, ``migration`` and ``status`` are what query-migrate and query-status say, ``deaf``: it does not
quit when told to, and ``on_incoming`` are the steps when a state is to be loaded. After its steps it serves QMP until it is told to quit.
"""

import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator

USERNET = (
    "Hub -1 (net0):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[HOST_FORWARD]  14       127.0.0.1 34567       10.0.2.15    22     0     0\r\n"
)


def main(arguments: list[str]) -> None:
    options = list(itertools.pairwise(arguments))
    lines = {}
    for option, value in options:
        if option == "-chardev":
            fields = dict(part.split("=") for part in value.split(",")[1:])
            lines[fields["id"]] = socket.socket(fileno=int(fields["fd"]))
    given = dict(options)
    with open(given["-kernel"]) as file:
        script = json.load(file)
    if "refuse" in script:
        sys.exit(script["refuse"])
    talker = Talker(lines["qmp"], lines["console"], script, [value for option, value in options if option == "-device"])
    threading.Thread(target=talker.listen_to_keys, daemon=True).start()
    talker.serve("verbose" if "ignore_loglevel" in given["-append"] and "verbose" in script else "quiet")


class Talker:
    def __init__(self, qmp: socket.socket, console: socket.socket, script: dict[str, object], devices: list[str]) -> None:
        self.qmp, self.console, self.script, self.devices = qmp, console, script, devices
        self.mute = False
        self.eaten: list[bytearray] = []

    def say(self, message: dict[str, object]) -> None:
        if not self.mute:
            self.qmp.sendall(json.dumps(message).encode() + b"\r\n")

    def play(self, steps: object) -> None:
        assert isinstance(steps, list)
        for step in steps:
            if step[0] == "console":
                self.console.sendall(step[1].encode())
            elif step[0] == "event":
                self.say({"event": step[1], "data": step[2], "timestamp": {"seconds": 1, "microseconds": 0}})
            elif step[0] == "stderr":
                print(step[1], file=sys.stderr, flush=True)
            elif step[0] == "mute":
                self.mute = True
            elif step[0] == "exit":
                os._exit(step[1])
            elif step[0] == "signal":
                os.kill(os.getpid(), step[1])
            elif step[0] == "eat":
                self.eaten = [bytearray(os.urandom(1 << 10) * (1 << 10)) for _ in range(step[1])]

    def listen_to_keys(self) -> None:
        while key := self.console.recv(1):
            keys = self.script.get("sysrq", {})
            assert isinstance(keys, dict)
            self.play(keys.get(key.decode(), []))

    def serve(self, steps_name: str) -> None:
        if self.script.get("mute"):
            self.mute = True
        self.say({"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}, "capabilities": ["oob"]}})
        for request in self.requests():
            command = request["execute"]
            # The client's first request, qmp_capabilities, has no id.
            answered = {key: request[key] for key in ("id",) if key in request}
            if command == "explode" or command in self.script.get("refused", []):  # type: ignore[operator]
                self.say({"error": {"class": "GenericError", "desc": "it exploded"}, **answered})
                continue
            if command == "migrate-incoming":
                self.play(self.script.get("on_incoming", []))
            if command == "migrate":
                with open(request["arguments"]["uri"].removeprefix("file:"), "w") as state:  # type: ignore[index]
                    state.write("state")
            self.say({"return": self.answer(command), **answered})
            if command == "cont":
                self.play(self.script.get(steps_name, []))
            if command == "quit" and not self.script.get("deaf"):
                self.say(
                    {
                        "event": "SHUTDOWN",
                        "data": {"guest": False, "reason": "host-qmp-quit"},
                        "timestamp": {"seconds": 1, "microseconds": 0},
                    }
                )
                os._exit(0)

    def requests(self) -> Iterator[dict[str, object]]:
        """Yield each JSON object that arrives: QMP has no line ends between them."""
        pending = ""
        while chunk := self.qmp.recv(65536):
            pending = (pending + chunk.decode()).lstrip()
            while pending:
                try:
                    request, end = json.JSONDecoder().raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:].lstrip()
                yield request

    def answer(self, command: object) -> object:
        if command == "human-monitor-command":
            return self.script.get("usernet", USERNET)
        if command == "query-status":
            return self.script.get("status", {})
        if command == "query-migrate":
            return self.script.get("migration", {"status": "completed"})
        if command == "query-memory-devices":
            names = [device.split("id=")[1].split(",")[0] for device in self.devices if device.startswith("nvdimm,")]
            if self.script.get("forget_nvdimms"):
                names = []
            return [{"type": "nvdimm", "data": {"id": name, "addr": 0x1_0000_0000 + i * 0x1000_0000}} for i, name in enumerate(names)]
        return {}


if __name__ == "__main__":
    main(sys.argv[1:])
