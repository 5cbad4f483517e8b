"""The cost of zeros in a small language model."""
