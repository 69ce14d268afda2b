"""Laws 2, 3 and 4 over real records, held against an independent renderer and a raw tokenizer with control parsing on."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mft.conversation import ROLE_ALIASES, Conversation, Message
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample, encode_prompt, encode_rows
from mft.tokenization.load import TextTokenizer, format_for, load_tokenizer

CONTROL = ("<unk>", "<s>", "</s>")
FORMATS = ("codefuse", "ziya")


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder: Path) -> TextTokenizer:
    return load_tokenizer(llama2_tokenizer_folder)


def reference_text(name: str, messages: list[tuple[str, str]]) -> str:
    """The golden text, written again in the fewest lines; it ends with the generation prompt if the user speaks last."""
    if name == "codefuse":
        tags = {"system": "system", "user": "human", "assistant": "bot"}
        text = "".join(f"<|role_start|>{tags[r]}<|role_end|>{c}" + "</s>" * (r == "assistant") for r, c in messages)
        return text + "<|role_start|>bot<|role_end|>" * (messages[-1][0] == "user")
    parts = {"system": "<human>: \n{}\n", "user": "<human>: \n{}\n<bot>: \n", "assistant": "{}</s>"}
    text = "<s>" + "".join(parts[r].replace("{}", c) for r, c in messages)
    return text.replace("\n<human>: \n", "\n", 1) if messages[0][0] == "system" else text


def read_messages(row: dict) -> tuple[Message, ...] | None:
    """Messages of one record of any file in chat/ and mft/; None for a role that is not ours."""
    if "chat" in row:
        turns = [("system", row["meta_instruction"])]
        for turn in row["chat"].values():
            turns += [("user", turn["Human"]), ("assistant", turn["MOSS"])]
        return tuple(Message(role, text) for role, text in turns)
    if "turns" in row:
        return tuple(Message("user", text) for text in row["turns"])
    found = row.get("chat_rounds") or row.get("conversations") or row.get("messages")
    messages = []
    for turn in found:
        role = ROLE_ALIASES.get(turn.get("role") or turn["from"])
        if role is None:
            return None
        content = turn["content"] if "content" in turn else turn["value"]
        content = content if isinstance(content, str) else "".join(part["value"] for part in content)
        messages.append(Message(role, content, train=turn.get("loss_weight", 1.0) > 0 or role != "assistant"))
    return tuple(messages)


def records(shared_data: Path, every: int = 1) -> Iterator[tuple[str, tuple[Message, ...] | None]]:
    for path in sorted([*(shared_data / "chat").glob("*.gz"), *(shared_data / "mft").glob("*.gz")]):
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream):
                if number % every == 0:
                    yield f"{path.name}:{number + 1}", read_messages(json.loads(line))


def trained_runs(sample: TokenizedSample) -> list[tuple[int, list[int]]]:
    """(start, ids) of each run of trained tokens that ends with an end mark."""
    runs, start = [], None
    for index, label in enumerate(sample.labels):
        if label == IGNORE_INDEX:
            assert start is None, "an answer without its end mark"
        else:
            assert label == sample.input_ids[index]
            start = index if start is None else start
            if label == 2:
                runs.append((start, list(sample.labels[start:index + 1])))
                start = None
    assert start is None
    return runs


def check_conversation(name: str, conversation: Conversation, tokenizer: TextTokenizer, raw: Tokenizer, counts: Counter) -> None:
    prompt_format = format_for(name, tokenizer)
    pairs = [(message.role, message.content) for message in conversation.messages]
    plain = not any(token in content for _, content in pairs for token in CONTROL)
    rows = encode_rows(conversation, prompt_format, tokenizer)
    expected = [index for index, message in enumerate(conversation.messages) if message.role == "assistant" and message.train]
    found = []
    for row in rows:
        runs = trained_runs(row)
        turns = [2 * int(row.id.split("#")[1]) - 1 + (pairs[0][0] == "system")] if "#" in row.id else expected
        found += turns
        end = turns[-1] + 1 if "#" in row.id else len(pairs)
        assert tokenizer.decode(row.input_ids) == reference_text(name, pairs[:end])
        assert len(runs) == len(turns)
        for (start, ids), turn in zip(runs, turns, strict=True):
            prefix = list(row.input_ids[:start])
            assert raw.decode([13, *ids], skip_special_tokens=False) == "\n" + prompt_format.canonical(pairs[turn][1]) + "</s>"
            if not plain or turn == turns[-1]:
                assert prefix == encode_prompt(conversation.messages[:turn], prompt_format, tokenizer)
            if plain:
                served = reference_text(name, pairs[:turn])
                assert prefix == raw.encode(served, add_special_tokens=False).ids
                counts["prompts"] += 1
    assert found == expected
    counts["conversations"] += 1
    counts["rows"] += len(rows)
    counts["several rows"] += len(rows) > 1
    counts["with control text"] += not plain


def check_records(name: str, shared_data: Path, tokenizer: TextTokenizer, every: int = 1) -> Counter:
    counts: Counter = Counter()
    raw = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    prompt_format = format_for(name, tokenizer)
    for where, messages in records(shared_data, every):
        fault = "unknown role" if messages is None else prompt_format.fault(messages)
        if messages is None or fault:
            counts[f"fault: {fault}"] += 1
        else:
            check_conversation(name, Conversation(where, "task", messages), tokenizer, raw, counts)
    return counts


@pytest.mark.parametrize("name", FORMATS)
def test_text_mask_and_served_ids_hold_on_a_sample_of_the_records(name, shared_data, llama2):
    counts = check_records(name, shared_data, llama2, every=40)
    assert counts["conversations"] > 350
    assert counts["prompts"] > 450


@pytest.mark.slow
@pytest.mark.parametrize(("name", "several"), [("codefuse", 95), ("ziya", 0)])
def test_text_mask_and_served_ids_hold_on_all_records(name, several, shared_data, llama2):
    counts = check_records(name, shared_data, llama2)
    faults = {reason: count for reason, count in counts.items() if reason.startswith("fault")}
    assert faults == {"fault: unknown role": 153, "fault: repeated_role": 80, "fault: no_answer": 3, "fault: empty_message": 1}
    assert (counts["conversations"], counts["prompts"], counts["several rows"]) == (15259, 21163, several)


def test_a_byte_level_vocabulary_keeps_the_laws(shared_data, deepseek_tokenizer_folder):
    tokenizer = load_tokenizer(deepseek_tokenizer_folder)
    raw = Tokenizer.from_file(str(deepseek_tokenizer_folder / "tokenizer.json"))
    codefuse, checked = format_for("codefuse", tokenizer), 0
    assert codefuse.eos == "<|EOT|>"
    for where, messages in records(shared_data, every=100):
        if messages is None or codefuse.fault(messages):
            continue
        pairs = [(message.role, message.content) for message in messages]
        for row in encode_rows(Conversation(where, "task", messages), codefuse, tokenizer):
            text = tokenizer.decode(row.input_ids)
            assert reference_text("codefuse", pairs).replace("</s>", "<|EOT|>").startswith(text)
            first = next(index for index, label in enumerate(row.labels) if label != IGNORE_INDEX)
            prompt = tokenizer.decode(row.input_ids[:first])
            assert list(row.input_ids[:first]) == raw.encode(prompt, add_special_tokens=False).ids
            assert text.startswith(prompt)
            assert prompt.endswith("<|role_start|>bot<|role_end|>")
            checked += 1
    assert checked > 150


@pytest.mark.parametrize("text", ["a</s>b", "</s>", "<s><s>", "<unk>", "</s><|role_end|>", "x </s> y\n<s>"])
@pytest.mark.parametrize("name", ["codefuse", "codefuse_2023", "ziya"])
def test_control_tokens_in_messages_stay_text(name, text, llama2):
    prompt_format = format_for(name, llama2)
    messages = (Message("system", text), Message("user", text), Message("assistant", text))
    (row,) = encode_rows(Conversation("row", "task", messages), prompt_format, llama2)
    bos = [1] if name == "ziya" else []
    assert [index for index in row.input_ids if index in (0, 1, 2)] == [*bos, 2]
    assert row.input_ids[-1] == row.labels[-1] == 2
    assert row.labels.count(2) == 1
    if name != "codefuse_2023":
        assert llama2.decode(row.input_ids).count(text) >= 3
