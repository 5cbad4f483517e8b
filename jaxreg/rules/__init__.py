"""Which penalty acts on which leaf."""
