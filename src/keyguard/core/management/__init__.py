"""Operations on organizations, keys and the audit trail.

What belongs here: one module for each phase of a key's life. Each function takes
:class:`~keyguard.core.management.ports.ManagementPorts`; the classes of :mod:`keyguard.guard` offer
it as a method. An operation refuses before it writes, and changes all in one commit with its
entries in the audit trail.
"""
