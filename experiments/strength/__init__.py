"""Choices of a strength, or of the sparsity that it should give."""
