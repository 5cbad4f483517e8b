"""Not an experiment: its name has a leading underscore."""

raise AssertionError("a helper was imported as an experiment")
