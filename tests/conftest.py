"""Options of the whole suite."""

pytest_plugins = ["tests.lacking"]
