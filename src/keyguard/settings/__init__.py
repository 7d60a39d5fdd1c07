"""What a service settles: its settings, where they are read from, peppers, and hashing."""
