"""What is on a volume before a program begins: the files of a file system that nobody can write to."""

from harness.model.content import Content, Ranges, tagged
from harness.model.facts import Env
from harness.model.filesystems import FILESYSTEM_TRAITS, PreparedFile
from harness.model.objects import Memory, MemoryKind, page_ceil
from harness.model.state import State
from harness.model.value import evolve
from harness.ops.tag import PREPARED_WRITER


def initial_state(env: Env) -> State:
    """Return the state before the first step: nothing but the prepared files of what set-up mounted."""
    state = State()
    for volume in env.reading.volumes:
        if volume.filesystem is not None:
            state = with_prepared(env, state, volume.role, volume.filesystem, dax=volume.dax)
    return state


def with_prepared(env: Env, s: State, volume: str, filesystem: str, *, dax: bool) -> State:
    """Return the state with the files that ``filesystem`` has on ``volume`` from its making, mounted with DAX or without."""
    traits = FILESYSTEM_TRAITS.get(filesystem)
    for file in () if traits is None else traits.prepared:
        state_of_file = dax and (file.whole_blocks or bool(env.fact("packed_end_dax", volume, dax, filesystem)))
        known = s.files.get((volume, file.name))
        memory = _fresh(file, volume, filesystem) if known is None else s.memory(known)
        memory = evolve(memory, dax=state_of_file)
        if known is not None:
            s = s.with_object(known, memory)
        else:
            s, number = s.adding(memory)
            s = evolve(s, files=s.files.having((volume, file.name), number))
    return s


def _fresh(file: PreparedFile, volume: str, filesystem: str) -> Memory:
    content = Content().write(0, tagged(PREPARED_WRITER, file.size, file.source))
    data = Ranges().add(0, page_ceil(file.size)) if file.size else Ranges()
    return Memory(MemoryKind.FILE, volume, file.name, file.size, content, data, closed_by=filesystem)
