"""Reads usage, and dismisses hints."""

from __future__ import annotations

from keyguard.core.management.usage_evidence import FoundHints
from keyguard.core.management.usage_reports import Reports


class AsyncUsage(Reports, FoundHints):
    """The usage that one guard's key store keeps, for async code."""
