"""The computer that runs QEMU: processes, deadlines, tools, caches, settings."""
