"""Tokens: their format, secrets, and the tokens of other systems."""
