"""The table of bad input, its test and its page."""
