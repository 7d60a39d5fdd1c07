"""The present request: who it is, and what its decorators ask.

What belongs here: what stands between a middleware and the code of an application.
"""
