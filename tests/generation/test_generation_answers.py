"""A file of prompts: every row once, in order, whatever the batches and however often it was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mft.errors import DataError, OutputError
from mft.generation.answers import AnswerSettings, Journal, answer_file
from mft.generation.chat import load_chat_model
from mft.generation.prompts import read_prompts

SETTINGS = AnswerSettings(max_new_tokens=6, batch_size=3)


@pytest.fixture(scope="module")
def folder(small_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers") / "model"
    shutil.copytree(small_llama, path)
    (path / "mft.json").write_text(json.dumps({"format": "codefuse"}))
    return path


@pytest.fixture(scope="module")
def chat(folder):
    return load_chat_model(folder)


@pytest.fixture
def prompts(tmp_path):
    rows = [{"id": f"q{number}", "prompt": "ab " * (1 + number * 7 % 11)} for number in range(8)]
    rows.insert(3, {"messages": [{"role": "system", "content": "s"}, {"from": "human", "value": "a"}, {"role": "gpt", "content": "no"}]})
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_stand_in_the_files_order_and_do_not_depend_on_the_batches(chat, folder, prompts, tmp_path):
    facts = answer_file(chat, folder, prompts, tmp_path / "a.jsonl", SETTINGS)
    answer_file(chat, folder, prompts, tmp_path / "b.jsonl", AnswerSettings(max_new_tokens=6, batch_size=1))
    assert [row["id"] for row in lines(tmp_path / "a.jsonl")] == ["q0", "q1", "q2", "prompts.jsonl:4", "q3", "q4", "q5", "q6", "q7"]
    assert lines(tmp_path / "a.jsonl") == lines(tmp_path / "b.jsonl")
    assert (facts["read"], facts["answered"], facts["errors"], facts["resumed"]) == (9, 9, {}, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "prompts.jsonl"]


def test_a_row_that_cannot_be_answered_has_its_reason_and_stops_nobody(chat, folder, tmp_path):
    source = tmp_path / "p.jsonl"
    source.write_text('{"prompt": "a"}\nnot json\n[1]\n{"prompt": 3}\n{"text": "a"}\n{"messages": [{"role": "tool", "content": "x"}]}\n\n'
                      '{"prompt": "<|role_start|>"}\n{"messages": []}\n' + json.dumps({"prompt": "ab " * 600}) + "\n")
    facts = answer_file(chat, folder, source, tmp_path / "a.jsonl", SETTINGS)
    assert facts["errors"] == {"bad_row": 5, "role_tag_in_text": 1, "no_messages": 1, "over_context": 1}
    assert facts["answered"] == 1
    found = lines(tmp_path / "a.jsonl")
    assert len(found) == facts["read"] == 9
    assert found[4]["error"] == "has keys text; expected exactly one of prompt, messages, chat_rounds, conversations"
    assert found[5]["error"] == "messages[0] has role 'tool'; expected system, user, human, assistant, bot, gpt"
    assert [row["id"] for row in found[:2]] == ["p.jsonl:1", "p.jsonl:2"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_stopped_after_any_batch_and_resumed_equals_never_stopped(chat, folder, prompts, tmp_path, monkeypatch, temperature):
    settings = AnswerSettings(max_new_tokens=6, batch_size=3, temperature=temperature, seed=5)
    answer_file(chat, folder, prompts, tmp_path / "whole.jsonl", settings)
    out = tmp_path / "a.jsonl"
    add = Journal.add

    def stop_after_one(self, batch, rows):
        add(self, batch, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", stop_after_one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            answer_file(chat, folder, prompts, out, settings)
        assert not out.exists()
        journal = tmp_path / ".a.jsonl.answers.partial"
        with journal.open("ab") as stream:
            stream.write(b'{"batch": 7, "rows": {"0": {"te')     # torn by the kill
    monkeypatch.setattr(Journal, "add", add)
    facts = answer_file(chat, folder, prompts, out, settings)
    assert facts["resumed"] == 6
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.exists()


def test_a_journal_of_other_settings_is_not_used(chat, folder, prompts, tmp_path, caplog):
    out = tmp_path / "a.jsonl"
    Journal(tmp_path / ".a.jsonl.answers.partial", "another job").add(0, {0: {"id": "q0", "text": "wrong"}})
    assert answer_file(chat, folder, prompts, out, SETTINGS)["resumed"] == 0
    assert "belongs to another input, model or setting" in caplog.text
    assert "wrong" not in out.read_text()


def test_a_finished_output_is_never_replaced_unasked(chat, folder, prompts, tmp_path):
    out = tmp_path / "a.jsonl"
    out.write_text("mine\n")
    with pytest.raises(OutputError, match="exists; give another --output, or --overwrite"):
        answer_file(chat, folder, prompts, out, SETTINGS)
    assert out.read_text() == "mine\n"
    answer_file(chat, folder, prompts, out, SETTINGS, overwrite=True)
    assert len(lines(out)) == 9
    with pytest.raises(OutputError, match="cannot be written"):
        answer_file(chat, folder, prompts, out / "below" / "a.jsonl", SETTINGS)


def test_an_input_that_is_missing_or_empty_is_one_message(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="has no row"):
        read_prompts(tmp_path / "empty.jsonl")


@pytest.mark.slow
def test_the_command_killed_again_and_again_writes_what_one_that_was_never_killed_writes(folder, tmp_path):
    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps({"id": number, "prompt": f"def f{number}(x):"}) + "\n" for number in range(60)))

    def command(out):
        return [sys.executable, "-m", "mft", "--json", "generate", "--model", str(folder), "--input", str(source), "--output",
                str(tmp_path / out), "--max-new-tokens", "60", "--batch-size", "2"]

    subprocess.run(command("whole.jsonl"), check=True, capture_output=True)
    journal = tmp_path / ".killed.jsonl.answers.partial"
    for _ in range(3):
        size = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(command("killed.jsonl"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < size + 1000):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed.jsonl").exists()
    done = subprocess.run(command("killed.jsonl"), check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["resumed"] > 0
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [row["id"] for row in lines(tmp_path / "killed.jsonl")] == list(range(60))
    assert os.listdir(tmp_path).count(".killed.jsonl.answers.partial") == 0
