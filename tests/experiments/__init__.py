"""Tests of the experiments and of what runs them."""
