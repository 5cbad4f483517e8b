"""Tests of `jaxreg.model_selection`."""
