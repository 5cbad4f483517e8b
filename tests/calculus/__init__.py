"""Tests of `jaxreg.calculus`."""
