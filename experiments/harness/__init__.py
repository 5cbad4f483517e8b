"""Finds, runs and reports experiments."""
