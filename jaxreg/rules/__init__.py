"""Rules that assign penalties to leaves."""
