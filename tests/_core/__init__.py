"""Tests of `jaxreg._core`."""
