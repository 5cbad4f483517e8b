"""How to choose a strength, or the sparsity it should give."""
