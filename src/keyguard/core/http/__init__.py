"""Decisions about paths, proxies and fields: rules, trusted proxies, principal fields."""
