"""Published HumanEval scores of the models that this project is about, so that a result stands among them."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """pass@1 in percent as the source prints it; `protocol` is what the source says of how it was scored, or "not stated"."""

    model: str
    percent: float
    source: str
    protocol: str


CODEFUSE: Final = "model card of CodeFuse-CodeLlama-34B"
CODEFUSE_4BIT: Final = "model card of CodeFuse-CodeLlama-34B-4bits"
ZIYA: Final = "model card of Ziya-Coding-34B-v1.0"
CODEFUSE_RULES: Final = "greedy; codefuse-evaluation, whose own file gives 120 to 124 of 164 by rule of joining and imports"
TABLES: Final = "comparison tables of the model cards of CodeFuse-CodeLlama-34B, its 4-bit release and Ziya-Coding-34B-v1.0"
UNSTATED: Final = "not stated"

PUBLISHED: Final[tuple[PublishedScore, ...]] = (
    PublishedScore("Ziya-Coding-34B-v1.0", 75.5, ZIYA, "prompt and greedy decoding stated, extraction not; 75.5 is no multiple of 1/164"),
    PublishedScore("CodeFuse-CodeLlama-34B", 74.4, CODEFUSE, CODEFUSE_RULES),
    PublishedScore("CodeFuse-CodeLlama-34B-4bits", 73.8, CODEFUSE_4BIT, CODEFUSE_RULES),
    PublishedScore("Phind-CodeLlama-34B-v2", 73.8, ZIYA, UNSTATED),
    PublishedScore("WizardCoder-Python-34B-V1.0", 73.2, TABLES, UNSTATED),
    PublishedScore("GPT-4 (zero-shot)", 67.0, TABLES, UNSTATED),
    PublishedScore("PanGu-Coder2 15B", 61.6, TABLES, UNSTATED),
    PublishedScore("WizardCoder-15B-V1.0", 59.8, ZIYA, UNSTATED),
    PublishedScore("CodeLlama-34b-Python", 53.7, TABLES, UNSTATED),
    PublishedScore("Ziya-Coding-15B-v1", 50.1, ZIYA, UNSTATED),
    PublishedScore("CodeLlama-34b", 48.8, TABLES, UNSTATED),
    PublishedScore("GPT-3.5 (zero-shot)", 48.1, TABLES, UNSTATED),
    PublishedScore("OctoCoder", 46.2, TABLES, UNSTATED),
    PublishedScore("StarCoder-15B", 33.6, TABLES, UNSTATED),
    PublishedScore("LLaMA 2 70B", 29.9, TABLES, UNSTATED),
)
"""HumanEval pass@1, greedy; best first."""


def among_published(model: str, share: float, protocol: str) -> list[dict[str, Any]]:
    """The table with a result of ours in its place: `model`, `percent`, `source`, `protocol`, and `ours`."""
    rows = [{"model": row.model, "percent": row.percent, "source": row.source, "protocol": row.protocol, "ours": False}
            for row in PUBLISHED]
    rows.append({"model": model, "percent": round(100 * share, 1), "source": "measured here", "protocol": protocol, "ours": True})
    return sorted(rows, key=lambda row: (-row["percent"], not row["ours"]))
