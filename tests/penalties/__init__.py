"""Tests of `jaxreg.penalties`."""
