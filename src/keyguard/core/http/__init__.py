"""What is decided by path, proxy or field: rules, trusted proxies, principal fields."""
