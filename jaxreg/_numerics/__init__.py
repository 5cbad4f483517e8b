"""Algorithms on arrays: thresholds, roots, lines and singular values."""
