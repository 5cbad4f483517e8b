"""Tests of `jaxreg.constraints`."""
