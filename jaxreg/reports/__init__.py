"""Numbers and tables about parameters."""
