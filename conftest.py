"""Loads the harness plugin; nothing else lives here."""

pytest_plugins = ["harness.plugin"]
