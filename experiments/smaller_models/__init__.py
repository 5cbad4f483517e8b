"""How small networks get, and what that saves."""
