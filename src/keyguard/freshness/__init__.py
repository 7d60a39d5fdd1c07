"""What a guard remembers, and how it learns that this is out of date.

What belongs here: verified tokens, single-flight look-ups, and the work that is done beside
requests: following the change feed, telling the store when keys were last used, hashing anew.
"""
