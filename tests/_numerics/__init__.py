"""Tests of `jaxreg._numerics`."""
