"""The agent: runs inside the guest, does the steps of a program by raw system calls, and says what came back.

docs/agent-protocol.md describes the JSON lines. The agent judges nothing and knows no expectation. It travels with ``harness.ops`` as one
archive (bundle.py) and needs nothing but the standard library.

Processes: the daemon only accepts connections and forks a *session* for each. A session answers one request at a time; for a program it
forks the process ``main`` and is its *supervisor*. The processes of a program (*actors*) are all direct children of the supervisor
(CLONE_PARENT), so that it can reap each and see which signal ended it. When a program ends they are killed, and every descriptor, mapping
and pin that they held goes with them.
"""
