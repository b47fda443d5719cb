"""What runs inside the guest: one file, Python standard library only."""
