"""What the process offers: deadlines, threads, forks and clocks, imports at first use, and events.

What belongs here knows nothing of keys.
"""
