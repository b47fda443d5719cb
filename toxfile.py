"""tox: an environment for the cases on each kernel of images/kernels.yaml. Read by tox itself, where it runs."""

from collections.abc import Iterable
from pathlib import Path

from tox.config.loader.memory import MemoryLoader
from tox.config.sets import ConfigSet
from tox.config.types import Command
from tox.plugin import impl
from tox.session.state import State

#: The command of [testenv:cases].
CASES = ("python", "-m", "pytest", "-c", "pyproject.toml", "-p", "harness.plugin", "-o", "testpaths=cases")
CATALOG = Path(__file__).parent / "images" / "kernels.yaml"


def kernels() -> tuple[str, ...]:
    try:
        import yaml
    except ImportError:  # tox.ini requires it: tox makes itself an environment that has it, and starts again there
        return ()
    return tuple(yaml.safe_load(CATALOG.read_text())["kernels"])


@impl
def tox_extend_envs() -> Iterable[str]:
    """Name an environment after each kernel."""
    return tuple(f"cases-{kernel}" for kernel in kernels())


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Say what each of them runs; all else is as in [testenv]."""
    for kernel in kernels():
        loader = MemoryLoader(
            description=f"every case on {kernel}",
            commands=[Command([*CASES, "--kernel", kernel, *(state.conf.pos_args(None) or ())])],
        )
        state.conf.memory_seed_loaders[f"cases-{kernel}"].append(loader)
