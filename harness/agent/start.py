"""What Python runs of the archive (there it is ``__main__.py``)."""

import gc
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Where the header of a member has its size, the size of its name, and that of what else it says (APPNOTE.TXT 4.3.7).
_SIZES = ((18, 4), (26, 2), (28, 2))


class Archive:
    """Imports the modules of the archive from memory: Python's own way compiles each of them twice, and opens the archive for each."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        with open(archive, "rb") as file:
            self._texts = dict(members(file.read()))

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        stem = name.replace(".", "/")
        for file in (f"{stem}.py", f"{stem}/__init__.py"):
            if file in self._texts:
                origin = f"{self.archive}/{file}"
                return ModuleSpec(name, self, origin=origin, is_package=file != f"{stem}.py")  # type: ignore[arg-type]  # has all of a Loader
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        origin = str(module.__spec__.origin)
        exec(compile(self._texts[origin.removeprefix(f"{self.archive}/")], origin, "exec", dont_inherit=True, optimize=2), module.__dict__)


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of what an archive holds one after the other, uncompressed."""
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        size, name_size, extra_size = (int.from_bytes(data[at + place : at + place + count], "little") for place, count in _SIZES)
        begin = at + 30 + name_size + extra_size
        yield data[at + 30 : at + 30 + name_size].decode(), data[begin : begin + size]
        at = begin + size


if __name__ == "__main__":
    gc.disable()  # the daemon collects when all is loaded
    # hashlib has SHA-256 without OpenSSL, whose memory every process of a program would have as well.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    sys.meta_path.insert(0, Archive(sys.argv[0]))
    from harness.agent.main import main

    sys.exit(main(sys.argv[1:]))
