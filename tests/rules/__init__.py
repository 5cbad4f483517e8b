"""Tests of `jaxreg.rules`."""
