"""A QEMU-backed integration test harness for persistent memory and DAX on Linux."""
