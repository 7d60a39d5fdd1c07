"""Usage: how it is counted, kept and reported. Values in, values out."""
