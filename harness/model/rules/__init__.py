"""One rule for each operation, by family. What several families share is in ``effects``, ``buffers``, ``transfers``, ``reads``, ``writes``,
``moving`` and ``pages``: these hold no rule, and no module of rules imports another one."""

from harness.model.rules import (
    access,
    allocation,
    attributes,
    caching,
    copying,
    files,
    mappings,
    opening,
    pins,
    pipes,
    processes,
    residence,
    sharing,
    sockets,
    splice,
    system,
)
from harness.model.rules.rule import RULES

#: The modules that hold rules.
RULE_MODULES = (
    access,
    allocation,
    attributes,
    caching,
    copying,
    files,
    mappings,
    opening,
    pins,
    pipes,
    processes,
    residence,
    sharing,
    sockets,
    splice,
    system,
)

__all__ = ["RULES", "RULE_MODULES"]
