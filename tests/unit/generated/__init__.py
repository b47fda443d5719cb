"""The generator of programs, and what runs and judges them."""
