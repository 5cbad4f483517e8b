"""What zeros cost a small language model."""
