"""Parts of a recipe that name files: their paths are relative to the recipe."""

from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from mft.config.model import StrictModel


class Located(StrictModel):
    """Knows the folder that its paths are relative to: the recipe's (the working directory for a recipe made in Python)."""

    _folder: Path = PrivateAttr(default_factory=Path)

    def model_post_init(self, context: Any) -> None:
        self._folder = Path((context or {}).get("folder", "."))

    @property
    def folder(self) -> Path:
        """The folder that paths are relative to."""
        return self._folder
