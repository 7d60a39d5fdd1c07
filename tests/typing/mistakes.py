# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that type checkers must find: mypy and pyright report a comment that ignores nothing."""

from __future__ import annotations

from keyguard import AsyncKeyguard, Keyguard, Settings

Keyguard("memory://", relam="AIaaS")  # type: ignore[call-arg]
AsyncKeyguard("memory://", realm=7)  # type: ignore[arg-type]
Settings(relam="AIaaS")  # type: ignore[call-arg]
Settings.from_env(relam="AIaaS")  # type: ignore[call-arg]
Settings.from_file("keyguard.toml", cache_size="many")  # type: ignore[arg-type]
