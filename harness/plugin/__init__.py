"""The only place that knows pytest: options, collection, selection, fixtures for Python cases, what is not tried, reports, the log."""

pytest_plugins = [
    "harness.plugin.options",
    "harness.plugin.collect",
    "harness.plugin.selection",
    "harness.plugin.fixtures",
    "harness.plugin.refuse",
    "harness.plugin.outcome",
    "harness.plugin.live",
    "harness.plugin.log",
]
