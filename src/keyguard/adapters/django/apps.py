"""Keyguard as one of Django's applications, which registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

__all__ = ["KeyguardConfig"]


class KeyguardConfig(AppConfig):
    """Registers the system checks."""

    name = "keyguard.adapters.django"
    label = "keyguard"
    verbose_name = "Keyguard"

    def ready(self) -> None:
        """Register the system checks."""
        from keyguard.adapters.django.checks import check_keyguard

        register(check_keyguard, "security", "keyguard")
