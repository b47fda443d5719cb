"""The reference model: what Linux may do. Pure: no I/O, no clock, no randomness."""
