"""Tests that each way of applying a penalty solves the problem that it names."""
