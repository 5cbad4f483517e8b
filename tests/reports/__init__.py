"""Tests of `jaxreg.reports`."""
