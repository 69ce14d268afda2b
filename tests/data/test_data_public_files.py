"""Every public data file is read with the converter that suits it, or refused: each row is kept or counted (law 1)."""

import gzip
import json

import pytest

from mft.conversation import shape_of, turn_fault
from mft.data import build
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError


def fields(user, assistant, **more):
    return {"type": "fields", "user": user, "assistant": assistant, **more}


def pair(prompt, answer, **more):
    return {"type": "pairs", "columns": {"prompt": prompt, "answer": answer, **more}}


SQL = '{{ sql[0] | replace("  ", " ") }}'

FILES = {
    # file: (converter, rows read, rows dropped by reason, rows noted)
    "calib/c4_demo.jsonl.gz": ("auto", 300, {}, {}),
    "calib/wiki_demo.txt.gz": ("auto", 30, {}, {}),
    "chat/fastchat_dummy.jsonl.gz": ("auto", 500, {}, {}),
    "chat/glaive_toolcall_en.jsonl.gz": ("auto", 300, {"unknown_role": 153}, {}),
    "chat/moss_code_0_59.jsonl.gz": ("auto", 60, {}, {}),
    "chat/sharegpt_zh_0_699.jsonl.gz": ("auto", 700, {"no_answer": 3, "empty_message": 1}, {}),
    "chat/v1_messages_demo.jsonl.gz": ("auto", 500, {}, {}),
    "instruct/alpaca_en_0_29999.jsonl.gz": ("auto", 30000, {"empty_message": 17}, {}),
    "instruct/alpaca_gpt4_en_0_799.jsonl.gz": ("auto", 800, {}, {}),
    "instruct/alpaca_gpt4_zh_0_799.jsonl.gz": ("auto", 800, {}, {}),
    "instruct/alpaca_zh_0_3252.jsonl.gz": ("auto", 3247, {"empty_message": 4}, {}),
    "instruct/code_alpaca_2k_0_1599.jsonl.gz": ("auto", 1600, {"empty_message": 1}, {}),
    "instruct/code_qa_zh_0_6999.jsonl.gz": ("auto", 7000, {}, {}),
    "instruct/codegpt_zh.jsonl.gz": (pair("user", "assistant", system="system"), 26757, {}, {}),
    "instruct/evol_instruct_code_1.jsonl.gz": ("auto", 1966, {}, {}),
    "instruct/identity.jsonl.gz": ("auto", 91, {}, {}),
    "instruct/new_codealpaca_0_3599.jsonl.gz": ("alpaca", 3600, {}, {"carriage_return": 1}),
    "mbpp/mbpp.jsonl.gz": (pair("text", "code"), 864, {}, {"carriage_return": 862}),
    "mbpp/mbpp_x_zh.jsonl.gz": (pair("prompt", "canonical_solution"), 390, {}, {"carriage_return": 389}),
    "mbpp/sanitized_mbpp.jsonl.gz": (pair("prompt", "code"), 356, {}, {}),
    "mft/code_completion.jsonl.gz": ("auto", 600, {}, {}),
    "mft/code_repair.jsonl.gz": ("auto", 2000, {}, {}),
    "mft/code_translation.jsonl.gz": ("auto", 1000, {}, {}),
    "mft/docstring_gen.jsonl.gz": ("auto", 1387, {}, {}),
    "mft/multi_turn_chat.jsonl.gz": ("auto", 696, {}, {}),
    "mft/python_code_gen.jsonl.gz": ("auto", 1599, {}, {}),
    "mft/text2sql.jsonl.gz": ("auto", 700, {}, {}),
    "mft/unit_test_gen.jsonl.gz": ("auto", 374, {}, {"carriage_return": 373}),
    "mft/zh_text2code.jsonl.gz": ("auto", 5000, {}, {}),
    "tasks/cloze_python_0_999.jsonl.gz": (
        fields('{{ pl_tokens | join(" ") }}', '{{ nl_tokens | join(" ") }}'), 1000, {}, {"carriage_return": 4}),
    "tasks/concode_dev_0_1499.jsonl.gz": (pair("nl", "code"), 1500, {}, {}),
    "tasks/docstring_python_0_1399.jsonl.gz": (pair("declbody", "description"), 1400, {}, {}),
    "tasks/repair_java_small_valid_0_2999.jsonl.gz": (pair("buggy", "fixed"), 3000, {}, {}),
    "tasks/spider_dev_0_699.jsonl.gz": (fields("{{ db_id }}: {{ question }}", "{{ query }}"), 700, {}, {}),
    "tasks/spider_tables.jsonl.gz": (fields("{{ db_id }}", '{{ table_names_original | join(", ") }}'), 166, {}, {}),
    "tasks/text2sql_advising_0_159.jsonl.gz": (fields("{{ sentences[0].text }}", SQL), 160, {}, {}),
    "tasks/text2sql_alpaca_form.jsonl.gz": ("auto", 217, {}, {}),
    "tasks/text2sql_wikisql_0_4999.jsonl.gz": (fields("{{ sentences[0].text }}", SQL), 5000, {}, {}),
    "tasks/translate_java_cs_train_0_2999.jsonl.gz": (fields("To C#:\n{{ java }}", "{{ cs }}"), 3000, {}, {}),
    "tasks/translate_java_cs_valid.jsonl.gz": (fields("To C#:\n{{ java }}", "{{ cs }}"), 499, {}, {}),
    "tasks/unit_test_gen_mbpp.jsonl.gz": (pair("prompt", "test"), 356, {}, {}),
    "tokenizer/llama_golden.jsonl.gz": ("text", 463, {"empty_message": 10}, {"nul": 2}),
}

REFUSED = {
    "chat/mt_bench_question.jsonl.gz": (80, "no_converter"),
    "humaneval/HumanEval.jsonl.gz": (164, "no_converter"),
    "humaneval/generations/codefuse_codellama_34b.jsonl.gz": (164, "no_converter"),
    "humaneval/generations/codegen16b_t08_20samples.jsonl.gz": (164, "no_converter"),
    "humaneval/generations/evol_replit.jsonl.gz": (164, "no_converter"),
    "humaneval/humaneval_python_cn.jsonl.gz": (164, "no_converter"),
    "humaneval/humanevalpack_python.jsonl.gz": (164, "no_converter"),
    **{f"humaneval/humanevalx_{language}.jsonl.gz": (164, "no_converter") for language in ("cpp", "go", "java", "js", "python", "rust")},
}
"""Prompts without answers, and benchmarks, whose answers are no training data."""

NO_ROWS = {"humaneval/generations/expected_pass.json", "tokenizer/codellama70b_reference.json",
           "tokenizer/deepseek_coder_tokenizer_config.json", "tokenizer/deepseek_coder_tokenizer.json.gz",
           "tokenizer/llama2/tokenizer.json.gz", "tokenizer/llama2/tokenizer_config.json",
           "tokenizer/codellama70b/tokenizer.json.gz", "tokenizer/codellama70b/tokenizer_config.json",
           "tokenizer/llama2_tokenizer.model", "README.md", "SHA256SUMS"}


def test_every_file_of_the_folder_is_listed(shared_data):
    found = {path.relative_to(shared_data).as_posix() for path in shared_data.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("mft_")} == FILES.keys() | REFUSED.keys() | NO_ROWS


@pytest.mark.parametrize("name", FILES)
def test_a_public_file_is_read_row_by_row(shared_data, name):
    converter, read, dropped, noted = FILES[name]
    ledger, task = Ledger("read"), name.split("/")[1].split(".")[0]
    rows = list(read_conversations(shared_data / name, converter, ledger))
    ledger.close()
    assert (ledger.read, dict(ledger.dropped), dict(ledger.noted)) == (read, dropped, noted)
    assert len(rows) == ledger.kept == read - sum(dropped.values())
    assert len({row.id for row in rows}) == len(rows)
    assert {row.task for row in rows} == {task}
    for row in rows:
        assert shape_of(row.messages) == "text" or turn_fault(row.messages) is None
        "".join(message.content for message in row.messages).encode("utf-8")


@pytest.mark.parametrize("name", REFUSED)
def test_prompts_and_benchmarks_are_refused(shared_data, name):
    ledger, (read, reason) = Ledger("read"), REFUSED[name]
    with pytest.raises(DataError, match=r"\.jsonl\.gz:1: no converter fits this row; its keys are "):
        list(read_conversations(shared_data / name, "auto", ledger))
    ledger.close()
    assert (ledger.read, dict(ledger.dropped)) == (read, {reason: read})


def test_the_file_with_two_answer_fields_is_refused_until_one_is_named(shared_data):
    with pytest.raises(DataError, match=r"new_codealpaca_0_3599\.jsonl\.gz:1: the row fits alpaca and pairs \(instruction, response\)"):
        list(read_conversations(shared_data / "instruct" / "new_codealpaca_0_3599.jsonl.gz"))


def test_the_input_of_an_alpaca_row_is_found_again_behind_its_instruction(shared_data):
    name = "instruct/code_alpaca_2k_0_1599.jsonl.gz"
    with gzip.open(shared_data / name, "rt", encoding="utf-8") as lines:
        written = [json.loads(line) for line in lines]
    rows = {row.id.rpartition(":")[2]: row for row in read_conversations(shared_data / name)}
    inputs = 0
    for number, raw in enumerate(written, start=1):
        if str(number) in rows:
            user = rows[str(number)].messages[-2]
            if user.input_start is not None:
                inputs += 1
                assert (user.content[:user.input_start - 1], user.content[user.input_start:]) == (raw["instruction"], raw["input"])
            else:
                assert user.content == raw["instruction"]
    assert inputs == sum(1 for raw in written if raw["input"].strip() and raw["output"].strip() and raw["instruction"].strip())


def test_marks_of_llama_factorys_demo_leave_users_untrained_and_answers_trained(shared_data):
    rows = list(read_conversations(shared_data / "chat" / "v1_messages_demo.jsonl.gz"))
    assert {message.train for row in rows for message in row.messages if message.role == "assistant"} == {True}


RECIPE = """\
name: all
tasks:
  chat:
    sources:
      - {type: jsonl, path: "data/chat/[fgsv]*.jsonl.gz"}
      - {type: jsonl, path: data/chat/moss_code_0_59.jsonl.gz, converter: moss}
  broken: {sources: [{type: jsonl, path: broken.jsonl.gz}, {type: json, path: broken.json}, {type: csv, path: broken.csv}]}
  code: {sources: [{type: jsonl, path: data/mbpp/mbpp.jsonl.gz, converter: {type: pairs, columns: {prompt: text, answer: code}}}]}
steps: [{type: length, min_characters: 3, max_characters: 20000}, {type: exact_dedup}]
split: {validation: 0.1, by: id}
"""


def test_a_build_over_public_files_and_broken_ones_adds_up_by_source_and_step(shared_data, tmp_path):
    (tmp_path / "data").symlink_to(shared_data)
    good = b'{"question": "What?", "answer": "That."}\n'
    lines = good + b"{\n\n" + b'{"x": 1}\n' + good.replace(b"at", b"\xff")
    (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(lines) + gzip.compress(good)[:12])
    (tmp_path / "broken.json").write_bytes(b"[" + good.replace(b"That", b"This") + b', 7, {"question": "a", "question": "b"}, {')
    (tmp_path / "broken.csv").write_bytes(b'question,answer\nWho?,\nWho?,Me.\nWho?\n"never,closed\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    facts = build(tmp_path / "r.yaml").facts
    steps = {(step["step"], step.get("task")): step for step in facts["steps"]}
    assert steps["read", "chat"]["dropped"] == {"empty_message": 1, "no_answer": 3, "unknown_role": 153}
    assert (steps["read", "chat"]["read"], steps["read", "code"]["read"]) == (500 + 300 + 700 + 500 + 60, 864)
    assert steps["read", "broken"]["dropped"] == {
        "blank_line": 1, "broken_csv": 1, "broken_json": 2, "duplicate_key": 1, "empty_message": 1, "invalid_utf8": 1, "no_converter": 1,
        "not_an_object": 1, "ragged_row": 1, "truncated_gzip": 1}
    assert (steps["read", "broken"]["read"], steps["read", "broken"]["kept"]) == (14, 3)
    chat, broken = steps["read", "chat"]["sources"], steps["read", "broken"]["sources"]
    assert [(source["source"], source["read"], source["kept"]) for source in chat] == [
        ("jsonl [fgsv]*.jsonl.gz", 2000, 1843), ("jsonl moss_code_0_59.jsonl.gz", 60, 60)]
    assert broken == [
        {"source": "jsonl broken.jsonl.gz", "read": 6, "kept": 1,
         "dropped": {"blank_line": 1, "broken_json": 1, "invalid_utf8": 1, "no_converter": 1, "truncated_gzip": 1}},
        {"source": "json broken.json", "read": 4, "kept": 1, "dropped": {"broken_json": 1, "duplicate_key": 1, "not_an_object": 1}},
        {"source": "csv broken.csv", "read": 4, "kept": 1, "dropped": {"broken_csv": 1, "empty_message": 1, "ragged_row": 1}}]
    for step in [*facts["steps"], *chat, *broken]:
        assert step["read"] == step["kept"] + sum(step["dropped"].values())
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values()) == 2060 + 864 + 14
