"""Arbitrary input: never a traceback, the ledger always adds up, and what is kept can be encoded."""

import gzip
import json
import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mft.conversation import shape_of, turn_fault
from mft.data import build
from mft.data.config import RecipeConfig
from mft.data.converters.registry import CONVERTERS
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import MftError

FUZZ = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))

CHOICES = ["auto", *CONVERTERS, {"type": "pairs", "columns": {"prompt": "question", "answer": "text", "id": "system"}},
           {"type": "fields", "system": "{{ system }}", "user": "{{ question }}{{ id + 1 }}", "assistant": "{{ messages[0].content }}"}]

TEXTS = st.one_of(st.sampled_from(["", " ", "a", "\n", "\r\n", "\0", "\ud800", "\ufeff", "\u2028\x85", "</s>", "<|Human|>: q<eoh>\n",
                                   "<|MOSS|>: a<eom>\n", "turn_1", "user", "Human ", "assistant", "gpt", "text", "{{ x }}", "x" * 3000]),
                  st.text(max_size=8))
KEYS = st.sampled_from(["messages", "conversations", "chat_rounds", "role", "from", "content", "value", "train", "weight", "untrained",
                        "type", "text", "instruction", "input", "output", "history", "prompt", "answer", "question", "response", "system",
                        "id", "task", "data_name", "prefix", "suffix", "middle", "chat", "turn_1", "Human", "MOSS", "", "\ud83d"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([10 ** 30, 1e400, float("nan"), 0.5, -0.0]), TEXTS)
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4),
                                                       st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=5)), max_leaves=12)

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "question"},
            {"role": "assistant", "content": "an answer", "weight": 1, "untrained": [[0, 2]]}]
PLAUSIBLE = [
    {"id": 1, "messages": MESSAGES}, {"data_name": "t", "chat_rounds": MESSAGES}, {"question": "q", "answer": "a", "system": "s"},
    {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "train": True}]},
    {"instruction": "i", "input": "x", "output": "o", "history": [["q", "a"]]}, {"text": "import os"},
    {"prompt": "p", "response": "r", "id": 7},
    {"prefix": "a", "suffix": "b", "middle": "c"}, {"id": 3, "question": "q", "system": "s", "messages": MESSAGES, "text": "t"},
    {"meta_instruction": "m", "chat": {"turn_1": {"Human": "<|Human|>: q<eoh>\n", "MOSS": "<|MOSS|>: a<eom>\n"}}},
]


@st.composite
def changed_rows(draw):
    """A plausible row with a few of its parts, at any depth, replaced, removed or renamed."""
    row = json.loads(json.dumps(draw(st.sampled_from(PLAUSIBLE))))
    for _ in range(draw(st.integers(0, 3))):
        node = row
        while isinstance(node, dict | list) and node:
            place = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if isinstance(node[place], dict | list) and draw(st.integers(0, 3)):
                node = node[place]
                continue
            if draw(st.booleans()):
                node[place] = draw(VALUES)
            elif isinstance(node, dict):
                node[draw(KEYS)] = node.pop(place)
            else:
                node.append(node[place])
            break
    return row


def as_line(value):
    return json.dumps(value).encode()


LINES = st.one_of(changed_rows().map(as_line), VALUES.map(as_line), st.binary(max_size=20), st.sampled_from(PLAUSIBLE).map(as_line),
                  changed_rows().map(lambda row: json.dumps(row).encode()[:-3]), st.just(b'{"id": 1, "id": 2}'), st.just(b"[" * 3000))


def check(path, choice, **options):
    """Read a file: only a message may come out, every row is counted, and what is kept keeps its promises."""
    ledger, rows = Ledger("read"), []
    try:
        for row in read_conversations(path, choice, ledger, **options):
            rows.append(row)   # noqa: PERF402 (what was read before an error counts too)
    except MftError as error:
        str(error).encode("utf-8")
        refused = "name one" in str(error)
    else:
        refused = False
        assert rows
    assert ledger.read == ledger.kept + ledger.dropped.total() + refused
    assert len(rows) == ledger.kept
    json.dumps(ledger.to_json(), ensure_ascii=False).encode("utf-8")
    for row in rows:
        (row.id + row.task + "".join(message.content for message in row.messages)).encode("utf-8")
        shape = shape_of(row.messages)
        assert turn_fault(row.messages) is None if shape == "chat" else row.messages[-1].content.strip()
        assert any(message.train for message in row.messages if message.role == "assistant")
        assert shape == "chat" or choice in ("auto", shape)
    assert len({(row.task, row.id) for row in rows}) == len(rows)


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    logging.getLogger("mft").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("mft").setLevel(logging.NOTSET)


@settings(FUZZ, max_examples=150)
@given(lines=st.lists(LINES, max_size=6), choice=st.sampled_from(CHOICES), train=st.sampled_from(["all", "last"]))
def test_arbitrary_lines_through_every_converter(lines, choice, train):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(b"\n".join(lines))
        check(path, choice, train=train)


@settings(FUZZ, max_examples=100)
@given(row=changed_rows())
def test_a_row_that_is_nearly_right_through_every_converter(row):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(as_line(PLAUSIBLE[8]) + b"\n" + as_line(row) + b"\n")
        for choice in CHOICES:
            check(path, choice)


@settings(FUZZ, max_examples=120)
@given(name=st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.txt", "a.parquet", "a.jsonl.gz", "a.json.zst", "a.csv.gz"]),
       data=st.one_of(st.binary(max_size=60), st.lists(LINES, max_size=5).map(lambda lines: b"[" + b",".join(lines) + b"]"),
                      st.lists(LINES, max_size=5).map(b"\n".join)),
       cut=st.integers(0, 40))
def test_arbitrary_bytes_under_every_name(name, data, cut):
    packed = gzip.compress(data) if name.endswith(".gz") else data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(packed[:len(packed) - cut] if cut < len(packed) else packed)
        check(path, "auto")


@settings(FUZZ, max_examples=60)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), name=st.sampled_from(["a.csv", "a.parquet"]))
def test_arbitrary_cells_of_tables(rows, name):
    rows = [tuple(cell.encode("utf-8", "replace").decode() for cell in row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if name == "a.csv":
            path.write_text("question,answer\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8", newline="")
        else:
            pq.write_table(pa.table({"question": [row[0] for row in rows], "answer": [row[1] for row in rows]}), path)
        check(path, "auto")


STEPS = [{"type": "normalise", "apply": ["newlines", "nul", "zero_width", "nfc", "full_width"]}, {"type": "length"},
         {"type": "secrets", "action": "mask"}, {"type": "syntax", "answers": "python"}, {"type": "repetition", "min_words": 5},
         {"type": "language", "keep": ["zh", "en", "none"]}, {"type": "exact_dedup"}, {"type": "near_dedup"},
         {"type": "cap", "by": "answer", "rows": 2}, {"type": "sample", "rows": 5}]


def check_build(lines, choice, steps):
    """Build the lines and one good row: one message, or rows of which the ledger knows each."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        Path(folder, "b.jsonl").write_bytes(as_line({"question": "q", "answer": "answer = 1"}) + b"\n")
        recipe = RecipeConfig.model_validate(
            {"name": "fuzz", "tasks": {"t": {"sources": [{"type": "jsonl", "path": "a.jsonl", "converter": choice},
                                                         {"type": "jsonl", "path": "b.jsonl", "converter": "pairs"}]}},
             "steps": steps, "split": {"validation": 0.2, "by": "id"}}, context={"folder": folder})
        try:
            facts = build(recipe, Path(folder, "out")).facts
        except MftError as error:
            str(error).encode("utf-8")
            return
        assert facts["read"] == facts["kept"] + sum(facts["dropped"].values()) >= 2
        sources = [source for step in facts["steps"] for source in step.get("sources", ())]
        assert all(step["read"] == step["kept"] + sum(step["dropped"].values()) for step in [*facts["steps"], *sources])
        assert sum(source["read"] for source in sources) == facts["read"]
        assert build(recipe, Path(folder, "out")).facts["sha256"] == facts["sha256"]


@settings(FUZZ, max_examples=40)
@given(lines=st.lists(LINES, min_size=1, max_size=8), choice=st.sampled_from(CHOICES))
def test_arbitrary_lines_through_a_whole_build(lines, choice):
    check_build(lines, choice, [{"type": "exact_dedup"}])


@pytest.mark.slow
@settings(FUZZ, max_examples=100)
@given(lines=st.lists(LINES, min_size=1, max_size=8), choice=st.sampled_from(["auto", "messages", "pairs"]), steps=st.permutations(STEPS))
def test_arbitrary_lines_through_a_whole_build_with_every_step_in_any_order(lines, choice, steps):
    check_build(lines, choice, steps)
