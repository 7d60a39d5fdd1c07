"""The present request: its principal, its charges, and the decorators that guard functions.

What belongs here: what an application asks while it serves a request. The adapters put a
:class:`~keyguard.request.state.RequestState` in place; nothing here knows a framework.
"""
