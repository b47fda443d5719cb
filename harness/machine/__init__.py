"""One QEMU process with its devices: what it is made of, how it starts, what it says, how it ended, and that nothing of it stays."""
