"""A package of experiments for the tests, copied into each test's own folder."""
