"""Who a request is from: scopes, principals, client addresses and networks."""
