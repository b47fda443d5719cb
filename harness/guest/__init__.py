"""The Linux under test, seen from the host: SSH, set-up of storage, reading it back, the agent's link."""
