"""The README as a package index shows it: a hook of the build, which makes its links absolute.

In the repository README.md links to files beside it. An index has no such files, so the wheel and
the source archive carry the same text with links into the repository that ``[project.urls]`` names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


def absolute(text: str, repository: str) -> str:
    """Return a text of Markdown whose relative links lead into the repository's main branch.

    Args:
        text: The text.
        repository: The repository's address, without a slash at the end.
    """
    return _LINK.sub(rf"]({repository}/blob/main/\1)", text)


class ReadmeHook(MetadataHookInterface):
    """Gives hatchling the README."""

    PLUGIN_NAME = "readme"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field ``readme``."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        readme = absolute(text, metadata["urls"]["Source"])
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
