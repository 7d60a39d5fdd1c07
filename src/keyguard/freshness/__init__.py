"""What a guard remembers, and how it learns that this is out of date.

What belongs here: verified tokens, single-flight look-ups, and the background work: it follows the
change feed, writes to the store when keys were last used, and hashes tokens again.
"""
