"""Keyguard as one of Django's applications: its system checks, and its part in OpenAPI."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig, apps
from django.core.checks import register

__all__ = ["KeyguardConfig"]


class KeyguardConfig(AppConfig):
    """Registers the system checks, and the guard with drf-spectacular if that is installed."""

    name = "keyguard.adapters.django"
    label = "keyguard"
    verbose_name = "Keyguard"

    def ready(self) -> None:
        """Register the system checks, and the guard with drf-spectacular."""
        from keyguard.adapters.django.checks import check_keyguard

        register(check_keyguard, "security", "keyguard")
        if apps.is_installed("drf_spectacular"):
            import_module("keyguard.adapters.django._spectacular")
