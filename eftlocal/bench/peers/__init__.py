"""Measures eftlocal against other ways to decode with the same weights, each in its own process."""
