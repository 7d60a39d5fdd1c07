"""Operations on organizations, keys and the audit trail.

What belongs here: :class:`~keyguard.core.management.keys.AsyncKeys` and the classes beside it,
which are what an async guard offers, and one module for each phase of a key's life. An operation
refuses before it writes, and changes all in one commit with its entries in the audit trail.
"""
