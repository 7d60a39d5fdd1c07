"""What a client sends: the format, the secret, and the tokens of other systems."""
