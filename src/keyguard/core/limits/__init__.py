"""Limits: their notation, the buckets of a request, and the arithmetic of their windows."""
