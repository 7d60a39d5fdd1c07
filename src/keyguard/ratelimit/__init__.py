"""Where counters live.

What belongs here: the protocol, one module for each kind of store, how a store is chosen, and what
is done while one fails. How hits are counted is arithmetic, and lives in
:mod:`keyguard.sansio.windows`.
"""
