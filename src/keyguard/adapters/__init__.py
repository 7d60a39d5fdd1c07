"""Where keyguard meets a server or a framework.

What belongs here: translation, and no decision. :mod:`~keyguard.adapters.asgi` and
:mod:`~keyguard.adapters.wsgi` are pure: they know the two interfaces and no framework. The others
are thin layers over them, one for each framework.
"""
