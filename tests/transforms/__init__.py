"""Tests of `jaxreg.transforms`."""
