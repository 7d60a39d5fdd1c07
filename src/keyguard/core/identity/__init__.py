"""The sender of a request: scopes, principals, client addresses and networks."""
