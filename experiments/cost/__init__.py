"""Iterations, time and memory of penalties."""
