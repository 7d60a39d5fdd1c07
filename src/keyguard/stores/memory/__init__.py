"""Keys and counters in this process: for tests, demos, and a single worker."""
