"""A QEMU-backed integration test harness for persistent memory and DAX on Linux."""

import logging

# Who wants to see the log says so (harness/host/log.py); nobody else is to find its warnings on the terminal.
logging.getLogger(__name__).addHandler(logging.NullHandler())
