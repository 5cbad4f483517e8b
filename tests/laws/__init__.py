"""Laws of all penalties, on every row of one table."""
