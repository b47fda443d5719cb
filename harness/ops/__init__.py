"""The words: every operation of a program, its arguments and flags. Standard library only; the agent travels with this package.

Each operation is one system call, one load or one store. Exceptions are set-up that no clause judges beyond success: ``tcp_pair`` (socket
to accept), ``xdp_socket``, ``rdma_open``.
"""

from harness.ops.files import *
from harness.ops.mappings import *
from harness.ops.pins import *
from harness.ops.pipes import *
from harness.ops.processes import *
from harness.ops.program import *
from harness.ops.sockets import *
from harness.ops.system import *
from harness.ops.words import *
