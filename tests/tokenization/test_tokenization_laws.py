"""Laws 2, 3 and 4 over real records, held against an independent renderer and a raw tokenizer with control parsing on."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mft.conversation import ROLE_ALIASES, Conversation, Message
from mft.formats.base import PromptFormat
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample, encode_prompt, encode_rows
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.sections import encoding_fault

IM = ("<|im_start|>", "<|im_end|>")
PAIRS = [
    *[(name, "llama2") for name in ("codefuse", "codefuse_4bit", "codefuse_card", "mftcoder", "ziya", "llama2", "alpaca", "raw")],
    *[(name, "deepseek") for name in ("codefuse", "codefuse_4bit", "codefuse_card", "ziya", "llama2", "alpaca", "raw", "fim", "jinja")],
    ("codellama70b", "codellama70b"), ("fim", "codellama70b"), ("chatml", "chatml"),
]
"""Every format with every tokenizer at hand that it goes with (and chatml with a Llama vocabulary that has its tokens)."""


@pytest.fixture(scope="module")
def folders(llama2_tokenizer_folder, deepseek_tokenizer_folder, codellama70b_tokenizer_folder, tmp_path_factory) -> dict[str, Path]:
    chatml = tmp_path_factory.mktemp("chatml")
    spec = json.loads((llama2_tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"] += [dict(spec["added_tokens"][2], id=32000 + index, content=token) for index, token in enumerate(IM)]
    (chatml / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (chatml / "tokenizer_config.json").write_text((llama2_tokenizer_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return {"llama2": llama2_tokenizer_folder, "deepseek": deepseek_tokenizer_folder, "codellama70b": codellama70b_tokenizer_folder,
            "chatml": chatml}


BELOW = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
DEEPSEEK = ("You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you only answer "
            "questions related to computer science. For politically sensitive questions, security and privacy issues, and other "
            "non-computer science questions, you will refuse to answer\n")
FIM = {"<s>": ("▁<PRE>", "▁<SUF>", "▁<MID>"), "<｜begin▁of▁sentence｜>": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")}


def ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def reference_text(name: str, pairs: list[tuple[str, str]], bos: str, eos: str) -> str:
    """The text of a conversation, written again in the fewest lines; it ends with the generation prompt if the user speaks last."""
    asked, first = pairs[-1][0] == "user", pairs[0][0] == "system"
    system, turns = (pairs[0][1], pairs[1:]) if first else (None, pairs)
    if name in ("codefuse", "codefuse_4bit", "codefuse_card"):
        tags = {"system": "system", "user": "human", "assistant": "bot"}
        lines = {"codefuse": (), "codefuse_4bit": ("user",), "codefuse_card": ("user", "system")}[name]
        close = eos + "\n" * (name == "codefuse_card")
        text = "".join(f"<|role_start|>{tags[r]}<|role_end|>{ended(c) if r in lines else c}" + close * (r == "assistant") for r, c in pairs)
        return text + "<|role_start|>bot<|role_end|>" * asked
    if name == "mftcoder":
        tags = {"system": "<s>system\n{}\n", "user": "<s>human\n{}\n", "assistant": "<s>bot\n{}\n</s>\n"}
        return "".join(tags[r].replace("{}", c) for r, c in pairs) + "<s>bot\n" * asked
    if name == "chatml":
        return "".join(f"<|im_start|>{r}\n{c}<|im_end|>\n" for r, c in pairs) + "<|im_start|>assistant\n" * asked
    if name == "ziya":
        joined = [(system + "\n" + turns[0][1] if first else turns[0][1]), *(c for _, c in turns[1:])]
        return bos + "".join(f"{c}{eos}" if i % 2 else f"<human>: \n{c}\n<bot>: \n" for i, c in enumerate(joined))
    if name == "llama2":
        joined = [(f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0][1]}" if first else turns[0][1]), *(c for _, c in turns[1:])]
        return "".join(f" {c.strip()} {eos}" if i % 2 else f"{bos}[INST] {c.strip()} [/INST]" for i, c in enumerate(joined))
    if name == "alpaca":
        return bos + (system if first else BELOW) + "".join(
            f"{c}{eos}" if r == "assistant" else f"\n\n### Instruction:\n{c}\n\n### Response:" for r, c in turns)
    if name == "codellama70b":
        parts = [] if first else ["Source: system"]
        parts += [f"Source: {r}" + (f"\n\n {c.strip()}" if c.strip() else "") for r, c in pairs]
        if not asked:
            parts[-1] = parts[-1].replace("assistant\n\n ", "assistant\nDestination: user\n\n ", 1)
        return "<s>" + "".join(f"{part} <step> " for part in parts) + "Source: assistant\nDestination: user\n\n " * asked
    if name == "jinja":   # DeepSeek Coder's own template
        text = bos + (system if first else DEEPSEEK)
        return text + "".join(f"### Instruction:\n{c}\n" if r == "user" else f"### Response:\n{c}\n<|EOT|>\n" for r, c in turns) \
            + "### Response:\n" * asked
    if name == "raw":
        return bos + pairs[0][1] + eos * (not asked)
    prefix, suffix, middle = FIM[bos]
    text = f"{bos}{prefix}{pairs[0][1]}{suffix}{pairs[1][1]}{middle}"
    return text if asked else text + pairs[2][1] + ("▁<EOT>" if bos == "<s>" else eos)


def reference_answer(name: str, answer: str, eos: str) -> str:
    """What is trained of one answer."""
    return {"mftcoder": f"{answer}\n</s>", "llama2": f" {answer.strip()} {eos}", "chatml": f"{answer}<|im_end|>",
            "codellama70b": f"{answer.strip()}<step>", "jinja": f"{answer}\n<|EOT|>"}.get(name, answer + eos)


def control_count(name: str, pairs: list[tuple[str, str]]) -> int:
    """How many control tokens the text of these turns has."""
    roles = Counter(role for role, _ in pairs)
    return {"mftcoder": len(pairs) + roles["assistant"], "chatml": 2 * len(pairs), "ziya": 1 + roles["assistant"], "raw": 2, "fim": 5,
            "llama2": roles["user"] + roles["assistant"], "alpaca": 1 + roles["assistant"], "jinja": 1 + roles["assistant"],
            "codellama70b": 1 + len(pairs) + (not roles["system"])}.get(name, roles["assistant"])


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


def trained_runs(sample: TokenizedSample, ends: set[int]) -> list[tuple[int, list[int]]]:
    """(start, ids) of each run of trained tokens that ends with an end mark."""
    runs, start = [], None
    for index, label in enumerate(sample.labels):
        if label == IGNORE_INDEX:
            assert start is None, "an answer without its end mark"
        else:
            assert label == sample.input_ids[index]
            start = index if start is None else start
            if label in ends:
                runs.append((start, list(sample.labels[start:index + 1])))
                start = None
    assert start is None
    return runs


LETTERS = frozenset(range(32000, 32013))
"""Letters such as ö that DeepSeek's file has as added tokens: its ids are those of the text, but the raw decoder takes them for bytes."""


@dataclass
class Setting:
    """A format with a tokenizer, and the same tokenizer as a server has it: with control tokens parsed."""

    name: str
    tokenizer: TextTokenizer
    raw: Tokenizer
    prompt_format: PromptFormat

    def text(self, pairs: list[tuple[str, str]]) -> str:
        bos = "" if self.name.startswith("codefuse") else self.tokenizer.bos_token or ""
        return reference_text(self.name, pairs, bos, self.tokenizer.eos_token)

    def decoded(self, ids: list[int]) -> str:
        """The text of ids in the middle of a section, by the raw tokenizer."""
        if self.tokenizer.family == "byte_level" and set(ids) & LETTERS:
            return self.tokenizer.decode(ids)
        if self.tokenizer.family == "byte_level":
            return self.raw.decode(ids, skip_special_tokens=False)
        return self.raw.decode([13, *ids], skip_special_tokens=False).removeprefix("\n")


def setting(name: str, folder: Path) -> Setting:
    tokenizer = load_tokenizer(folder)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    return Setting(name, tokenizer, raw, format_for(name, tokenizer))


def check_conversation(case: Setting, conversation: Conversation, counts: Counter) -> None:
    name, tokenizer = case.name, case.tokenizer
    pairs = [(message.role, message.content) for message in conversation.messages]
    plain = not any(token in content for _, content in pairs for token in tokenizer.control.values())
    rows = encode_rows(conversation, case.prompt_format, tokenizer)
    expected = [index for index, message in enumerate(conversation.messages) if message.role == "assistant" and message.train]
    found = []
    for row in rows:
        runs = trained_runs(row, {tokenizer.control_id(case.prompt_format.end_token)})
        turns = [2 * int(row.id.split("#")[1]) - 1 + (pairs[0][0] == "system")] if "#" in row.id else expected
        found += turns
        shown = pairs[:turns[-1] + 1 if "#" in row.id else len(pairs)]
        text = case.text(shown)
        if "#" in row.id and name == "codefuse_card":   # such a row ends with the end mark, not with the newline behind it
            text = text.removesuffix("\n")
        assert tokenizer.decode(row.input_ids) == (text.replace(" <step> ", "<step>") if name == "codellama70b" else text)
        assert sum(index in tokenizer.control for index in row.input_ids) == control_count(name, shown)
        assert len(runs) == len(turns)
        for (start, ids), turn in zip(runs, turns, strict=True):
            prefix = list(row.input_ids[:start])
            if tokenizer.family == "byte_level" or name not in ("raw", "fim"):   # these begin a section: ids 13 before them would lie
                assert case.decoded(ids) == reference_answer(name, pairs[turn][1], tokenizer.decode([ids[-1]]))
            asked = conversation.messages[:turn] if name != "raw" else ()
            if name != "raw" and (not plain or turn == turns[-1]):
                assert prefix == encode_prompt(asked, case.prompt_format, tokenizer)
            if plain:
                served = case.text(pairs[:turn]) if name != "raw" else tokenizer.bos_token
                assert prefix == case.raw.encode(served, add_special_tokens=False).ids
                counts["prompts"] += 1
    assert found == expected
    counts["conversations"] += 1
    counts["rows"] += len(rows)
    counts["several rows"] += len(rows) > 1
    counts["with control text"] += not plain


def of_shape(name: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """For `raw` and `fim`: the last answer as one text, and cut into prefix, middle and suffix."""
    text = messages[-1].content
    third = len(text) // 3
    if name == "raw":
        return (Message("assistant", text),)
    parts = Message("user", text[:third]), Message("user", text[2 * third:]), Message("assistant", text[third:2 * third])
    return parts if name == "fim" else messages


def check_records(case: Setting, shared_data: Path, every: int = 1) -> Counter:
    counts: Counter = Counter()
    for where, own in records(shared_data, every):
        messages = None if own is None else of_shape(case.name, own)
        fault = "unknown role" if messages is None else encoding_fault(messages, case.prompt_format, case.tokenizer)
        if messages is None or fault:
            counts[f"fault: {fault}"] += 1
        else:
            check_conversation(case, Conversation(where, "task", messages), counts)
    return counts


@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_text_mask_and_served_ids_hold_on_a_sample_of_the_records(name, vocabulary, shared_data, folders):
    counts = check_records(setting(name, folders[vocabulary]), shared_data, every=60)
    assert counts["conversations"] > 225
    assert counts["prompts"] > 225


CHAT_FAULTS = {"fault: unknown role": 153, "fault: repeated_role": 80, "fault: no_answer": 3, "fault: empty_message": 1}
SEVERAL = {("codefuse", "llama2"): (95, 15909), ("codefuse", "deepseek"): (64, 15627), ("alpaca", "llama2"): (37, 15603),
           ("alpaca", "deepseek"): (34, 15553), ("codellama70b", "codellama70b"): (1365, 21163)}
"""(conversations that need a row per turn, rows in all) where a token would run over a boundary, or the format says so."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_text_mask_and_served_ids_hold_on_all_records(name, vocabulary, shared_data, folders):
    counts = check_records(setting(name, folders[vocabulary]), shared_data)
    faults = {reason: count for reason, count in counts.items() if reason.startswith("fault")}
    found = (counts["conversations"], counts["prompts"], counts["several rows"], counts["rows"])
    if name == "raw":
        assert (faults, found) == ({"fault: unknown role": 153}, (15343, 15343, 0, 15343))
    elif name == "fim":
        assert (faults, found) == ({"fault: unknown role": 153, "fault: empty_message": 23}, (15320, 15320, 0, 15320))
    else:
        several, rows = SEVERAL.get((name.removesuffix("_4bit").removesuffix("_card"), vocabulary), (0, 15259))
        assert (faults, found) == (CHAT_FAULTS, (15259, 21163, several, rows))


@pytest.mark.parametrize("vocabulary", ["llama2", "deepseek"])
def test_the_encoding_of_2023_trains_the_answers_and_their_end_marks_alone(vocabulary, shared_data, folders):
    """It is excepted from law 3 by name, not from laws 2 and 4."""
    case = setting("codefuse_2023", folders[vocabulary])
    tokenizer, counts = case.tokenizer, Counter()
    for where, messages in records(shared_data, every=60):
        if messages is None or encoding_fault(messages, case.prompt_format, tokenizer):
            counts["fault"] += 1
            continue
        (row,) = encode_rows(Conversation(where, "task", messages), case.prompt_format, tokenizer)
        runs = trained_runs(row, {tokenizer.control_id(case.prompt_format.end_token)})
        answers = [message.content for message in messages if message.role == "assistant" and message.train]
        assert [tokenizer.decode(ids[:-1]) for _, ids in runs] == answers
        assert sum(index in tokenizer.control for index in row.input_ids) == sum(message.role == "assistant" for message in messages)
        counts["conversations"] += 1
    assert counts["conversations"] > 225


TEMPLATES = ("a{0}b", "{0}", "{0}{0}", "{0}<|role_end|>", "x {0} y\n{0}", " {0} ")


@pytest.mark.parametrize(("name", "vocabulary"), [*PAIRS, ("codefuse_2023", "llama2")])
def test_control_tokens_in_messages_stay_text_or_the_row_is_a_fault(name, vocabulary, folders):
    case = setting(name, folders[vocabulary])
    tokenizer, own = case.tokenizer, case.prompt_format
    for token in tokenizer.control.values():
        if "▁" in token:   # a Llama row with this character is dropped as `space_mark`
            continue
        for template in TEMPLATES:
            text = template.format(token)
            messages = of_shape(name, (Message("system", text), Message("user", text), Message("assistant", text)))
            if name == "jinja":
                assert own.fault(messages) == "control_text"
                continue
            (row,) = encode_rows(Conversation("row", "task", messages), own, tokenizer)
            pairs = [(message.role, message.content) for message in messages]
            controls = [index for index in row.input_ids if index in tokenizer.control]
            assert len(controls) == control_count(name.removesuffix("_2023"), pairs)
            ends = [label for label in row.labels if label == tokenizer.control_id(own.end_token)]
            assert len(ends) == 1
            if name not in ("codefuse_2023", "fim"):
                assert tokenizer.decode(row.input_ids).count(text.strip()) >= len(messages)
