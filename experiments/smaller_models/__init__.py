"""The size that networks can shrink to, and what it saves."""
