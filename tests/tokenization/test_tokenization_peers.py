"""Where our ids or labels differ from TRL's or MFTCoder's for the same row, the cause is proven and ours are the served ones.

TRL is the library itself (`SFTTrainer`); MFTCoder's two encodings are written from their description in `scripts/peer_rows.py`.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mft.conversation import Conversation, Message
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_rows

ROOT = Path(__file__).resolve().parents[2]
MADE = Path(__file__).with_name("peer_rows.jsonl")
IDS = ["plain", "boundary", "boundary-in-history", "two-turns", "indented", "eos-in-question", "eos-in-answer", "bos-in-question",
       "untrained", "full-width", "bytes"]

LAST_ONLY, AFTER_END, PROMPTS = "mask: earlier answers untrained", "mask: text after the end mark trained", "mask: prompts trained"
UNMARKED = "mask: train marks of the row ignored"
LLAMA, CODE_LLAMA = "trl prompt+completion, LlamaTokenizer", "trl prompt+completion, CodeLlamaTokenizer"
RELEASED, MESSAGES = "trl prompt+completion, released folder", "trl messages, released folder"
MARKED, IN_2023, AT_HEAD = "trl assistant_only_loss, generation marks put in", "mftcoder, 2023", "mftcoder, last commit"


@pytest.fixture(scope="module")
def tools() -> SimpleNamespace:
    """The command scripts/compare_ids.py and the modules beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import compare_ids
        import id_causes
        import id_peers
        import peer_rows

        return SimpleNamespace(command=compare_ids, causes=id_causes, peers=id_peers, rows=peer_rows)


@pytest.fixture(scope="module")
def compared(tools, llama2_tokenizer_folder, tmp_path_factory):
    """format -> (setting, conversations, {peer: states}, {peer: {row: causes}}), of the made-up rows."""
    made = {}

    def compare(name: str):
        if name not in made:
            setting = tools.command.make_setting(llama2_tokenizer_folder, name)
            rows, dropped = tools.command.read_rows([MADE], setting)
            assert [row.id for row in rows] == IDS
            assert not dropped
            peers = tools.peers.peers_of(setting, llama2_tokenizer_folder, tmp_path_factory.mktemp("peers"))
            states = {peer.name: peer.rows(rows) for peer in peers}
            found = {peer.name: {row.id: tools.causes.causes(setting.ours(row), state, peer.ladder(row))
                                 for row, state in zip(rows, states[peer.name], strict=True)} for peer in peers}
            made[name] = setting, rows, states, found
        return made[name]

    return compare


def only(**causes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Causes by row; rows that are not named have none."""
    return {**dict.fromkeys(IDS, ()), **{name.replace("_", "-"): found for name, found in causes.items()}}


BOUNDARY_ROWS = {"boundary": ("boundary",), "boundary_in_history": (LAST_ONLY, "boundary"), "two_turns": (LAST_ONLY,),
                 "bytes": (LAST_ONLY,)}

CODEFUSE = {
    RELEASED: only(**BOUNDARY_ROWS, eos_in_question=("control text",), eos_in_answer=("control text",), bos_in_question=("control text",)),
    LLAMA: only(**BOUNDARY_ROWS, eos_in_question=("control text", "leading space"), eos_in_answer=("control text", "leading space"),
                bos_in_question=("control text",)),
    CODE_LLAMA: only(boundary=("boundary",), boundary_in_history=(LAST_ONLY, "boundary", "dummy prefix"),
                     two_turns=(LAST_ONLY, "dummy prefix"), untrained=("dummy prefix",), bytes=(LAST_ONLY, "dummy prefix"),
                     **dict.fromkeys(("eos_in_question", "eos_in_answer", "bos_in_question"), ("control text", "dummy prefix"))),
    MARKED: only(boundary=("boundary",), boundary_in_history=("boundary",), untrained=(UNMARKED,), eos_in_question=("control text",),
                 eos_in_answer=("control text",), bos_in_question=("control text",)),
    MESSAGES: {**dict.fromkeys(IDS, (PROMPTS,)), "boundary": ("boundary", PROMPTS), "boundary-in-history": ("boundary", PROMPTS),
               "untrained": (UNMARKED, PROMPTS), "eos-in-question": (PROMPTS, "control text"), "eos-in-answer": (PROMPTS, "control text"),
               "bos-in-question": (PROMPTS, "control text")},
    IN_2023: {**dict.fromkeys(IDS, ("dummy prefix",)), "untrained": (UNMARKED, "dummy prefix"),
              "full-width": ("rewritten text", "dummy prefix"),
              **dict.fromkeys(("eos-in-question", "eos-in-answer", "bos-in-question"), ("dummy prefix", "control text"))},
}


@pytest.mark.parametrize("peer", list(CODEFUSE))
def test_every_difference_on_made_up_rows_has_the_cause_that_is_written_here(peer, compared):
    *_, found = compared("codefuse")
    assert sorted(found) == sorted(CODEFUSE)
    assert found[peer] == CODEFUSE[peer]


def test_the_newline_behind_the_end_mark_and_the_space_before_an_answer_are_found_in_mftcoder_rows(compared):
    *_, found = compared("mftcoder")
    assert {AFTER_END in found[RELEASED][name] for name in IDS} == {True}
    assert {name for name in IDS if "boundary" in found[RELEASED][name]} == set()   # its prompt ends in a newline, which no token crosses
    assert {name for name in IDS if found[MARKED][name]} == {"untrained", "eos-in-question", "eos-in-answer", "bos-in-question"}
    assert {"dummy prefix" in found[AT_HEAD][name] for name in IDS} == {True}


@pytest.mark.parametrize("name", ["codefuse", "mftcoder"])
def test_ours_trains_every_answer_as_served_and_no_peer_does(name, compared, tools):
    setting, rows, states, _ = compared(name)
    prompts = {row.id: tools.causes.served_prompts(setting, row) for row in rows}
    assert sum(map(len, prompts.values())) == 14
    assert sum(tools.causes.as_served(setting, prompts[row.id], setting.ours(row)) for row in rows) == 14
    theirs = {peer: sum(tools.causes.as_served(setting, prompts[row.id], state) for row, state in zip(rows, own, strict=True))
              for peer, own in states.items()}
    assert theirs == {"codefuse": {RELEASED: 6, LLAMA: 6, CODE_LLAMA: 3, MESSAGES: 6, MARKED: 8, IN_2023: 0},
                      "mftcoder": {RELEASED: 0, LLAMA: 0, CODE_LLAMA: 0, MESSAGES: 0, MARKED: 11, AT_HEAD: 0}}[name]


def test_at_a_boundary_ours_holds_the_ids_that_the_raw_tokenizer_gives_for_the_prompt_and_trl_does_not(compared):
    setting, rows, states, _ = compared("codefuse")
    (ours,), (theirs,) = setting.ours(rows[1]), states[RELEASED][1]
    served = setting.raw.encode("<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>", add_special_tokens=False).ids
    assert served[-3:] == [355, 29989, 29958]
    assert list(ours.input_ids) == [*served, 29922, 29871, 29946, 2]
    assert list(theirs.input_ids) == [*served[:-1], 18572, 29871, 29946, 2]
    assert list(ours.labels) == [-100] * 34 + [29922, 29871, 29946, 2]
    assert list(theirs.labels) == [-100] * 33 + [18572, 29871, 29946, 2]


def test_trl_makes_control_tokens_of_what_a_message_says_and_ours_has_one_end_mark(compared):
    setting, rows, states, _ = compared("codefuse")
    index = IDS.index("eos-in-answer")
    (ours,), (theirs,) = setting.ours(rows[index]), states[RELEASED][index]
    assert (ours.input_ids.count(2), theirs.input_ids.count(2)) == (1, 2)
    assert [label for label in theirs.labels if label != -100][:3] == [3047, 29871, 2]   # it learns to stop after "With "


def test_codefuse_2023_repeats_the_description_of_mftcoder_token_by_token(tools, compared):
    setting, rows, states, _ = compared("codefuse")
    own = format_for("codefuse_2023", setting.tokenizer)
    for row, (theirs,) in list(zip(rows, states[IN_2023], strict=True))[:5]:   # those without control text and rewritten characters
        (ours,) = encode_rows(row, own, setting.tokenizer)
        assert (ours.input_ids, ours.labels) == (theirs.input_ids, theirs.labels)
    (theirs,) = states[IN_2023][1]
    assert list(theirs.input_ids[15:23]) == [29871, 29906, 29974, 29906, 29973, 529, 29989, 12154]
    assert list(theirs.input_ids[-4:]) == [353, 29871, 29946, 2]


def test_the_last_mftcoder_puts_a_space_before_an_answer(compared):
    _, _, states, _ = compared("mftcoder")
    (theirs,) = states[AT_HEAD][0]
    assert list(theirs.input_ids) == [1, 5199, 13, 29906, 29974, 29906, 29973, 13, 1, 9225, 13, 29871, 29946, 13, 2, 29871, 13]
    assert list(theirs.labels) == [-100] * 11 + [29871, 29946, 13, 2, -100, -100]


def test_trl_refuses_assistant_only_loss_with_our_template_and_stops_at_a_row_that_the_template_refuses(tools, compared, tmp_path):
    from jinja2.exceptions import TemplateError

    setting, rows, _, _ = compared("codefuse")
    assert tools.peers.refusal(setting, rows, tmp_path).startswith("The chat template is not training-compatible")
    tagged = Conversation("tag", "task", (Message("user", "<|role_start|>bot<|role_end|>"), Message("assistant", "no")))
    auto = tools.rows.released_tokenizer(setting.tokenizer, setting.prompt_format, tmp_path)
    with pytest.raises(TemplateError, match="role tag"):
        tools.rows.trl_rows([rows[0], tagged], auto, "prompt_completion", 1024)


def test_trl_cuts_a_long_answer_and_loses_the_row_of_a_long_prompt(tools, compared, tmp_path):
    setting, *_ = compared("codefuse")
    long = " ".join(["word"] * 1100)
    rows = [Conversation(name, "task", (Message("user", question), Message("assistant", answer)))
            for name, question, answer in (("answer", "a", long), ("prompt", long, "a"), ("short", "a", "a"))]
    auto = tools.rows.released_tokenizer(setting.tokenizer, setting.prompt_format, tmp_path)
    theirs = tools.rows.trl_rows(rows, auto, "prompt_completion", 1024)
    assert [row and (len(row.input_ids), row.labels[-1]) for row in theirs] == [(1024, 1734), None, (33, 2)]
    states = [() if row is None else (row,) for row in theirs]
    found = [tools.causes.causes(setting.ours(row), state, tools.causes.completion_ladder(setting, row, auto, 1024))
             for row, state in zip(rows, states, strict=True)]
    assert found == [("truncated",), ("dropped",), ()]


def test_a_difference_that_no_rung_makes_is_unexplained(tools, compared):
    setting, rows, states, _ = compared("codefuse")
    (theirs,) = states[RELEASED][1]
    other = tools.rows.IdRow((*theirs.input_ids[:-1], 13), theirs.labels)
    ladder = tools.causes.messages_ladder(setting, rows[1], 1024, assistant_only=True)
    assert tools.causes.causes(setting.ours(rows[1]), (other,), ladder) == ("unexplained",)


@pytest.mark.parametrize(("name", "peers", "limit"), [("codefuse", 6, 2), pytest.param("mftcoder", 6, 9, marks=pytest.mark.slow)])
def test_the_command_explains_every_difference_on_a_sample_of_the_records(name, peers, limit, tools, shared_data, llama2_tokenizer_folder,
                                                                          monkeypatch, capsys):
    files = data_files(shared_data)
    monkeypatch.setattr(sys, "argv", ["compare_ids.py", "--data", *map(str, files), "--tokenizer", str(llama2_tokenizer_folder),
                                      "--format", name, "--limit", str(limit), "--json"])
    assert tools.command.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["format"], len(result["peers"])) == (name, peers)
    assert limit * len(files) - 4 <= result["rows"] <= limit * len(files)
    for peer in result["peers"]:
        assert "unexplained" not in peer["causes"], peer["examples"]["unexplained"]
        assert peer["as_served"]["ours"] == peer["answers"]
        assert peer["as_served"]["peer"] < peer["answers"]
    tools.command.show(result)
    printed = capsys.readouterr().out
    assert printed.count("\n  served  ") == len({cause for peer in result["peers"] for cause in peer["causes"]})


def test_a_format_that_the_vocabulary_lacks_is_one_message(tools, llama2_tokenizer_folder, monkeypatch, capsys):
    argv = ["compare_ids.py", "--data", str(MADE), "--tokenizer", str(llama2_tokenizer_folder), "--format", "chatml"]
    monkeypatch.setattr(sys, "argv", argv)
    assert tools.command.main() == 2
    assert "<|im_start|>" in capsys.readouterr().err


ALL = {
    LLAMA: (9078, 9680, {"boundary": 4751, LAST_ONLY: 1365, "dropped": 617, "truncated": 217}),
    CODE_LLAMA: (9078, 9078, {"boundary": 4751, LAST_ONLY: 1365, "dummy prefix": 1365, "dropped": 617, "truncated": 217}),
    RELEASED: (9078, 9680, {"boundary": 4751, LAST_ONLY: 1365, "dropped": 617, "truncated": 217}),
    MESSAGES: (0, 9681, {PROMPTS: 15259, "boundary": 4788, "truncated": 834}),
    MARKED: (9673, 12090, {"boundary": 4788, "truncated": 803, "dropped": 31}),
    IN_2023: (0, 0, {"dummy prefix": 15259, "rewritten text": 4954}),
}
"""codefuse over all records: rows equal to ours, answers as served, rows by cause; the table in CONTRIBUTING.md."""


@pytest.mark.slow
def test_codefuse_over_all_records_gives_the_table_of_contributing(tools, shared_data, llama2_tokenizer_folder):
    result = tools.command.run(data_files(shared_data), llama2_tokenizer_folder, "codefuse", None)
    assert result["rows"] == 15259
    assert {(peer["as_served"]["ours"], peer["answers"]) for peer in result["peers"]} == {(21163, 21163)}
    assert {peer["peer"]: (peer["equal"], peer["as_served"]["peer"], peer["causes"]) for peer in result["peers"]} == ALL
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, (equal, served, causes) in ALL.items():
        assert f"| {name} | {equal:,} | {served:,} | {'; '.join(f'{cause} {count:,}' for cause, count in causes.items())} |" in table


def data_files(shared_data: Path) -> list[Path]:
    """mft/ and chat/, without the questions that have no answers."""
    files = sorted([*(shared_data / "mft").glob("*.gz"), *(shared_data / "chat").glob("*.gz")])
    return [file for file in files if not file.name.startswith("mt_bench")]
