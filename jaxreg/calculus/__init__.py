"""Penalties made from penalties."""

# Nothing else imports it, and its rule of sums must be registered.
from jaxreg.calculus import decomposed_sum as decomposed_sum
