"""Faults that are really made, in guests that really run."""
