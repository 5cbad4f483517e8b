"""Tests of jaxreg, its documents and its experiments."""
