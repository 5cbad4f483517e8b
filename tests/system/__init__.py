"""Tests of the library as a whole, and with what surrounds it."""
