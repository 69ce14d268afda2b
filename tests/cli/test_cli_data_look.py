"""`mft data show, stats, diff` in a process of their own: one JSON object, or tables that a terminal holds."""

import json
import os
import subprocess
import sys

import pytest


def mft(*arguments, columns=80):
    process = subprocess.run([sys.executable, "-m", "mft", *map(str, arguments)], capture_output=True, text=True, timeout=300,
                             env={**os.environ, "COLUMNS": str(columns)})
    return process.returncode, process.stdout, process.stderr


def line(question, answer, **more):
    return json.dumps({**more, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The recipe and the folders of two builds: the second lacks a row and asks for more than there is."""
    folder = tmp_path_factory.mktemp("cli-look")
    rows = [line(f"问题 {n}", f"答案 {n} " * 20, id=n) for n in range(30)]
    outs = []
    for name, mixture in (("a", "{type: proportional}"), ("b", "{type: quotas, quotas: {t: 40}}")):
        (folder / "x.jsonl").write_text("\n".join(rows))
        (folder / f"{name}.yaml").write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: x.jsonl}}]}}}}\nmixture: {mixture}\n"
                                             "split: {validation: 0.2, by: id}\n")
        code, out, errors = mft("data", "build", folder / f"{name}.yaml", "--out", folder / name)
        assert code == 0, errors
        outs.append(out)
        rows = rows[1:]
    return folder, outs


def test_a_shortfall_is_a_line_of_the_build(folders):
    _, (plain, short) = folders
    assert "shortfall" not in plain
    assert "shortfall: " in short
    assert "of 40); nothing takes their place" in short


def test_show_colours_nothing_in_a_pipe_and_keeps_to_the_width(folders, tiny_base):
    code, out, _ = mft("data", "show", folders[0] / "a", "--format", "codefuse", "--tokenizer", "tiny-code-llama", "-n", 1, columns=40)
    assert code == 0
    assert "\x1b" not in out
    assert "▌↪ " in out
    assert max(len(row) for row in out.splitlines() if row.startswith(("▌", " "))) <= 40
    cut = mft("data", "show", folders[0] / "a", "--format", "codefuse", "--tokenizer", "tiny-code-llama", "-n", 1, "--long", "cut")[1]
    assert "… +" in cut


def test_stats_print_both_shares_and_draw_a_picture(folders, tiny_base, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "lengths.png"
    code, out, errors = mft("data", "stats", folders[0] / "b", "--format", "codefuse", "--tokenizer", "tiny-code-llama", "--plot", picture)
    assert code == 0, errors
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "rows asked for" in out
    assert "trained tokens" in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    code, out, _ = mft("--json", "data", "stats", folders[0] / "b")
    facts = json.loads(out)
    assert {"samples", "characters", "per_task", "dropped", "mixture", "steps"} <= facts.keys()
    assert mft("data", "stats", folders[0] / "b", "--plot", picture)[0] == 2


def test_diff_says_what_has_changed_and_exits_with_0(folders):
    code, out, _ = mft("--json", "data", "diff", folders[0] / "a", folders[0] / "b")
    facts = json.loads(out)
    assert code == 0
    assert facts["tasks"]["t"]["removed"] == 1
    assert facts["rows"] == {"a": 30, "b": 29}
    assert {entry["key"]: (entry["a"], entry["b"]) for entry in facts["recipe"]}["mixture.type"] == ("proportional", "quotas")
    code, out, _ = mft("data", "diff", folders[0] / "a", folders[0] / "b")
    assert code == 0
    assert "28" in out or "29" in out
    assert "mixture.type" in out
    assert mft("data", "diff", folders[0] / "a", folders[0])[0] == 2
