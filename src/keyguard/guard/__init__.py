"""The guards: what a service author holds.

What belongs here: :class:`Keyguard` and :class:`AsyncKeyguard`, which put the parts together, and
the ports that the core asks. The driver that runs the core for sync code is used here alone.
"""
