"""The command line as a user meets it: real processes, exit codes, one JSON object on stdout, errors that say what to do."""

import gzip
import json
import subprocess
import sys

import pytest

from mft.cli.usage import VERBS, split_flags

ROW = {"id": "r1", "chat_rounds": [{"role": "human", "content": "2+2?"}, {"role": "bot", "content": "4"}]}


def mft(*arguments, stdin=""):
    process = subprocess.run([sys.executable, "-m", "mft", *map(str, arguments)], capture_output=True, text=True, input=stdin, timeout=300)
    return process.returncode, process.stdout, process.stderr


def test_help_lists_every_verb_and_imports_neither_torch_nor_a_library_of_the_command_line():
    code = ("import sys\nfrom mft.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "heavy = {'torch', 'transformers', 'pydantic', 'typer', 'rich'} & sys.modules.keys()\nassert not heavy, heavy")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert all(f"  {verb} " in process.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_imports_no_torch(verb):
    code = f"import sys\nfrom mft.cli.main import run_verb\nassert run_verb('{verb}', ['--help'], {{}}) == 0\n"
    code += "assert 'torch' not in sys.modules"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert f"mft {verb}" in process.stdout


def test_global_flags_are_taken_before_and_after_the_verb_but_not_behind_a_double_dash():
    assert split_flags(["--json", "data", "build", "-v", "-v", "x"]) == ({"json": 1, "verbose": 2}, ["data", "build", "x"])
    assert split_flags(["generate", "--", "--json"]) == ({}, ["generate", "--", "--json"])


def test_a_misspelt_verb_or_option_is_a_message_and_exit_code_2():
    code, out, errors = mft("trian")
    assert (code, out) == (2, "")
    assert errors == "mft: 'trian' is not a verb of mft; did you mean 'train'?\n"
    code, out, errors = mft("merge", "--bse", "x")
    assert code == 2
    assert "--bse" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [
    ("data", "show", "x" * 300, "--format", "codefuse", "--tokenizer", "tiny-code-llama"), ("data", "stats", "x" * 300),
    ("data", "formats", "--tokenizer", "x" * 300)])
def test_a_path_that_the_system_refuses_is_a_message_and_exit_code_2(arguments):
    code, out, errors = mft("--json", *arguments)
    assert code == 2
    assert json.loads(out)["error"].endswith(": File name too long")
    assert "Traceback" not in errors


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def encode(*arguments):
    code, out, errors = mft("--json", "data", "encode", *arguments, "--context", 64)
    return code, json.loads(out), errors


def test_encode_writes_the_masked_tokens_of_a_file(tiny_base, rows, tmp_path):
    target = tmp_path / "tokens.jsonl"
    code, facts, _ = encode(rows, "--format", "codefuse", "--tokenizer", "tiny-code-llama", "--jsonl", target)
    assert code == 0
    assert (facts["read"], facts["samples"], facts["rows"], facts["dropped"]) == (1, 1, 1, {})
    [line] = map(json.loads, target.read_text().splitlines())
    assert line["text"] == "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"
    assert [label for label in line["labels"] if label != -100] == line["input_ids"][-2:]
    assert facts["trained_tokens"] == 2
    assert set(line) == {"id", "task", "text", "input_ids", "labels"}


BAD_ROWS = {
    "no_answer": json.dumps({"chat_rounds": ROW["chat_rounds"][:1]}),
    "role_tag_in_text": json.dumps({"chat_rounds": [{"role": "human", "content": "<|role_start|>bot<|role_end|>"}, ROW["chat_rounds"][1]]}),
    "broken_json": '{"chat_rounds": [',
    "unknown_role": json.dumps({"chat_rounds": [{"role": "tool", "content": "x"}, ROW["chat_rounds"][1]]}),
    "over_context": json.dumps({"chat_rounds": [ROW["chat_rounds"][0], {"role": "bot", "content": "long " * 200}]}),
}


def test_bad_rows_are_counted_by_reason_and_the_ledger_adds_up(tiny_base, rows, tmp_path):
    rows.write_text(json.dumps(ROW) + "\n" + "".join(line + "\n" for line in BAD_ROWS.values()))
    code, facts, errors = encode(rows, "--format", "codefuse", "--tokenizer", "tiny-code-llama", "--out", tmp_path / "out")
    assert code == 0
    assert facts["dropped"] == dict.fromkeys(BAD_ROWS, 1)
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values()) == 6
    assert f"{rows}:4" in errors
    code, out, _ = mft("--json", "data", "stats", tmp_path / "out")
    assert {key: json.loads(out)[key] for key in ("read", "kept", "dropped")} == {key: facts[key] for key in ("read", "kept", "dropped")}


def test_a_truncated_gzip_keeps_what_was_read_and_counts_the_fault(tiny_base, tmp_path):
    packed = gzip.compress("".join(json.dumps({**ROW, "id": f"r{n}"}) + "\n" for n in range(4000)).encode())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    code, facts, errors = encode(path, "--format", "ziya", "--tokenizer", "tiny-code-llama", "--jsonl", tmp_path / "t.jsonl")
    assert code == 0
    assert facts["dropped"]["truncated_gzip"] == 1
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    assert str(path) in errors


@pytest.mark.parametrize(("arguments", "message"), [
    (("--format", "codfuse", "--tokenizer", "tiny-code-llama"), "did you mean 'codefuse'"),
    (("--format", "codefuse", "--tokenizer", "./nowhere"), "./nowhere"),
])
def test_an_unknown_format_or_tokenizer_is_one_message(tiny_base, rows, tmp_path, arguments, message):
    code, facts, errors = encode(rows, *arguments, "--jsonl", tmp_path / "t.jsonl")
    assert code == 2
    assert facts["ok"] is False
    assert message in facts["error"]
    assert "Traceback" not in errors
    assert not (tmp_path / "t.jsonl").exists()


def test_empty_and_missing_inputs_are_one_message_and_leave_nothing(tiny_base, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for source, message in ((empty, "empty"), (tmp_path / "none.jsonl", "no such file")):
        code, facts, _ = encode(source, "--format", "codefuse", "--tokenizer", "tiny-code-llama", "--jsonl", tmp_path / "t.jsonl")
        assert code == 2
        assert message in facts["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl"]


def test_show_prints_spans_that_join_to_the_text(tiny_base, rows):
    code, out, _ = mft("--json", "data", "show", rows, "--format", "codefuse", "--tokenizer", "tiny-code-llama", "-n", 1)
    assert code == 0
    [sample] = json.loads(out)["samples"]
    assert sample["spans"] == [{"text": "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>", "trained": False},
                               {"text": "4</s>", "trained": True}]


def test_a_config_with_mistakes_is_refused_before_anything_is_loaded(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("name: x\nmodel: {base: tiny-code-llama, format: codefuse}\nstages:\n  - {kind: data, name: d, recpie: r.yaml}\n")
    code, out, errors = mft("run", config)
    assert (code, out) == (2, "")
    assert f"{config}:4: stages.d.recpie: not a known key; did you mean 'recipe'?" in errors
    assert f"{config}:4: stages.d.recipe: is required and not given" in errors
