"""Who makes a call, for hosts whose people a framework or a proxy knows.

Each function returns what is passed as ``identify``. The host says with a function of its own which
person a user is, with which roles; it is asked on every call, so a role that ends has ended on the
next call.
"""
