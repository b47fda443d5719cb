"""A run in the forms that other programs read: JUnit, JSON lines, KTAP, kcidb (``python -m harness export``)."""
