"""The fixtures that applications get, whether or not pytest has loaded them as a plugin."""

from pytest_keyguard import api_key, keyguard_settings, memory_guards

__all__ = ["api_key", "keyguard_settings", "memory_guards"]
