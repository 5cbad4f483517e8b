"""Tests of jaxreg.compaction."""
