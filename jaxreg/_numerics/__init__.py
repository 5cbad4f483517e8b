"""Algorithms on arrays: level searches, roots, lines and singular values."""
