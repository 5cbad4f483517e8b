"""The contract of penalties, and what every layer above stands on."""
