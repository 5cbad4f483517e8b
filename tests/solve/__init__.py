"""Tests of jaxreg.solve."""
