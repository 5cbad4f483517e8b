"""Claims about L1 and L2, each measured."""
