"""The guard behind real servers: what each delivers, and that nothing is ever let in.

Each server runs in a process of its own with the application of ``served_asgi`` or ``served_wsgi``,
and is spoken to over bare sockets. ``make test`` does so with one server of either kind,
``make servers`` with all.
"""
