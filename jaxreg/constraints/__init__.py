"""One indicator per file; its prox is the projection."""
