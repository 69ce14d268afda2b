"""Our ids and labels beside those of TRL and MFTCoder for the same conversations, with the cause of every difference.

    python scripts/compare_ids.py --data rows.jsonl.gz ... --tokenizer FOLDER --format codefuse [--limit N] [--json]

`--limit N` takes N rows of each file, evenly spread. `answers as served` counts the answers of which a row holds, in this order:
exactly the ids that the raw tokenizer gives for the served prompt, then as trained ids the answer's text and its end mark, then
something untrained or the end. Exit code 3 if a difference has no cause that was proven, 2 for a mistake in the arguments.
"""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import id_causes
from id_causes import MEANING, Setting, State
from id_peers import MAX_LENGTH, Peer, peers_of, refusal
from peer_rows import IGNORED, IdRow
from tokenizers import Tokenizer

from mft.conversation import Conversation
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import MftError
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import load_tokenizer
from mft.tokenization.sections import encoding_fault

BEFORE, AFTER = 6, 14


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation with our rows, its served prompts (`id_causes.served_prompts`) and how many of those our rows train."""

    conversation: Conversation
    ours: State
    prompts: list[tuple[list[int], str]]
    as_served: int


@dataclass(slots=True)
class Outcome:
    """What a comparison found. `examples`: for each cause the shortest row of that cause alone, or of the fewest causes."""

    peer: str
    rows: int = 0
    equal: int = 0
    answers: int = 0
    ours_as_served: int = 0
    peer_as_served: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain data."""
        examples = {cause: {key: value for key, value in example.items() if key != "rank"} for cause, example in self.examples.items()}
        return {"peer": self.peer, "rows": self.rows, "equal": self.equal, "different": self.rows - self.equal, "answers": self.answers,
                "as_served": {"ours": self.ours_as_served, "peer": self.peer_as_served}, "causes": dict(self.causes.most_common()),
                "examples": examples}


def make_setting(folder: Path, format_name: str) -> Setting:
    """The tokenizer of a folder, through mft and raw, with a format.

    Raises:
        MftError: the folder or the format cannot be used.
    """
    tokenizer = load_tokenizer(folder)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    return Setting(tokenizer, format_for(format_name, tokenizer), raw)


def read_rows(files: Iterable[Path], setting: Setting, limit: int | None = None) -> tuple[list[Conversation], Counter[str]]:
    """The conversations of these files that the format can render, and why others were left out."""
    kept, dropped = [], Counter[str]()
    for file in files:
        ledger = Ledger(file.name)
        rows = list(read_conversations(file, "auto", ledger))
        dropped += ledger.dropped
        for row in rows if limit is None else [rows[len(rows) * index // min(limit, len(rows))] for index in range(min(limit, len(rows)))]:
            if reason := encoding_fault(row.messages, setting.prompt_format, setting.tokenizer):
                dropped[reason] += 1
            else:
                kept.append(row)
    return kept, dropped


def make_case(setting: Setting, conversation: Conversation) -> Case:
    """What does not depend on the peer."""
    ours, prompts = setting.ours(conversation), id_causes.served_prompts(setting, conversation)
    return Case(conversation, ours, prompts, id_causes.as_served(setting, prompts, ours))


def compare(setting: Setting, cases: Sequence[Case], peer: Peer) -> Outcome:
    """Compare every conversation with one peer."""
    outcome = Outcome(peer.name)
    for case, theirs in zip(cases, peer.rows([case.conversation for case in cases]), strict=True):
        served = id_causes.as_served(setting, case.prompts, theirs)
        found = id_causes.causes(case.ours, theirs, peer.ladder(case.conversation))
        outcome.rows += 1
        outcome.equal += case.ours == theirs
        outcome.answers += len(case.prompts)
        outcome.ours_as_served += case.as_served
        outcome.peer_as_served += served
        outcome.causes.update(found)
        rank = (len(found), sum(len(row.input_ids) for row in case.ours))
        for cause in found:
            if cause not in outcome.examples or rank < outcome.examples[cause]["rank"]:
                outcome.examples[cause] = {"rank": rank, "peer_as_served": served, **_example(case, found, theirs)}
    return outcome


def _example(case: Case, found: Sequence[str], theirs: State) -> dict[str, Any]:
    """Ids around the first difference: the served prompt that reaches furthest there, our row and the peer's (`labels` beside them)."""
    row, other = case.ours[-1], theirs[0] if theirs else IdRow((), ())
    pairs = zip(zip(row.input_ids, row.labels, strict=True), zip(other.input_ids, other.labels, strict=True), strict=False)
    at = next((index for index, (one, two) in enumerate(pairs) if one != two), min(len(row.labels), len(other.labels)))
    served = next((ids for ids, _ in case.prompts if len(ids) > at), case.prompts[-1][0] if case.prompts else [])
    window = slice(max(0, at - BEFORE), at + AFTER)
    return {"id": case.conversation.id, "causes": list(found), "answers": len(case.prompts), "ours_as_served": case.as_served,
            "differs_at": at, "from": window.start, "served_prompt_length": len(served), "served": served[window],
            "ours": row.input_ids[window], "ours_labels": row.labels[window],
            "theirs": other.input_ids[window], "theirs_labels": other.labels[window]}


def run(files: Sequence[Path], folder: Path, format_name: str, limit: int | None) -> dict[str, Any]:
    """The whole comparison as plain data."""
    setting = make_setting(folder, format_name)
    conversations, dropped = read_rows(files, setting, limit)
    cases, outcomes = [make_case(setting, conversation) for conversation in conversations], []
    with TemporaryDirectory() as scratch:
        refused = refusal(setting, conversations, Path(scratch))
        for peer in peers_of(setting, folder, Path(scratch)):
            print(f"{format_name}: {len(conversations)} rows, {peer.name}", file=sys.stderr)
            outcomes.append(compare(setting, cases, peer).record())
    return {"format": format_name, "tokenizer": str(folder), "max_length": MAX_LENGTH, "rows": len(conversations), "dropped": dict(dropped),
            "assistant_only_loss": refused, "peers": outcomes}


def show(result: dict[str, Any]) -> None:
    """The result as a table; then each cause with its meaning and an example, trained ids in brackets."""
    print(f"{result['format']}: {result['rows']:,} rows; not compared: {result['dropped'] or 'none'}")
    print(f"trl, assistant_only_loss with the exported template: {result['assistant_only_loss']}\n")
    print("| peer | rows equal to ours | answers as served: ours | peer | rows by cause |\n|---|---|---|---|---|")
    for peer in result["peers"]:
        found = "; ".join(f"{cause} {count:,}" for cause, count in peer["causes"].items()) or "-"
        served = peer["as_served"]
        print(f"| {peer['peer']} | {peer['equal']:,} of {peer['rows']:,} | {served['ours']:,} of {peer['answers']:,} | {served['peer']:,} "
              f"| {found} |")
    for cause, (peer, example) in _shortest_examples(result["peers"]).items():
        print(f"\n{cause}: {MEANING[cause]}\n  {peer}, row {example['id']} ({', '.join(example['causes'])}); ids from {example['from']}, "
              f"first difference at {example['differs_at']}; answers as served: ours {example['ours_as_served']}, peer "
              f"{example['peer_as_served']} of {example['answers']}")
        print(f"  served  {_ids(example['served'])}   (the prompt has {example['served_prompt_length']})")
        print(f"  ours    {_ids(example['ours'], example['ours_labels'])}\n  theirs  {_ids(example['theirs'], example['theirs_labels'])}")


def _shortest_examples(peers: Sequence[dict[str, Any]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """One example of each cause, with its peer: of the fewest causes at once, then of the shortest prompt."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for peer in peers:
        for cause, example in peer["examples"].items():
            if cause not in found or _rank(example) < _rank(found[cause][1]):
                found[cause] = (peer["peer"], example)
    return found


def _rank(example: dict[str, Any]) -> tuple[int, int]:
    return len(example["causes"]), example["served_prompt_length"]


def _ids(ids: Sequence[int], labels: Sequence[int] | None = None) -> str:
    """Ids as text, trained ones in brackets."""
    trained = [label != IGNORED for label in labels] if labels is not None else [False] * len(ids)
    return " ".join(f"[{index}]" if mark else str(index) for index, mark in zip(ids, trained, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files of conversations, as `mft data encode` reads them")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--format", required=True, help="a prompt format by name")
    parser.add_argument("--limit", type=int, help="rows of each file, evenly spread")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        result = run(options.data, options.tokenizer, options.format, options.limit)
    except MftError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(result)
    return 3 if any(id_causes.UNEXPLAINED in peer["causes"] for peer in result["peers"]) else 0


if __name__ == "__main__":
    sys.exit(main())
