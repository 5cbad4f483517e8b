"""Constraints, one indicator per file; the prox is the projection."""
