"""The bits of the flags are those that the headers have: where Python knows one."""

import mmap
import os
import socket

import pytest

from harness import ops


@pytest.mark.parametrize(
    ("flags", "module", "prefix"),
    [(ops.OpenFlag, os, "O_"), (ops.MapFlag, mmap, "MAP_"), (ops.Protection, mmap, "PROT_"), (ops.SendFlag, socket, "MSG_")],
)
def test_python_has_the_same_bits_where_it_knows_them(flags: type[ops.Flag], module: object, prefix: str) -> None:
    known = {flag: getattr(module, prefix + flag.name, None) for flag in flags}
    assert any(value is not None for value in known.values())
    assert {flag: value for flag, value in known.items() if value is not None} == {f: f.bits for f in flags if known[f] is not None}
