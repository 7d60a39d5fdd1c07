"""Counters in the storages of the package `limits`, with the weaker promise of that package."""
