"""TensorBoard: event files in the run folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class TensorBoardRun:
    """Writes `FOLDER/tensorboard`. Points after the step that a resumed training starts from are hidden; they will come again."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, from_step: int) -> None:
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=from_step + 1 if from_step else None)
        for name, value in facts.items():
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()), from_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values under their names."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Add texts, one for each row, as preformatted Markdown."""
        for number, row in enumerate(rows):
            parts = (f"**{key}**\n\n" + "\n".join(f"    {line}" for line in value.splitlines()) for key, value in row.items())
            self._writer.add_text(f"{name}/{number}", "\n\n".join(parts), step)
        self._writer.flush()

    def close(self, exit_code: int) -> None:
        """End the files."""
        self._writer.close()
