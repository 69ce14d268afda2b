"""The study of balances: its tables say what was measured, its blocks are those that it names, and it goes on where it was stopped."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "balance_study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("balance_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def losses(a, b, overall):
    return {"eval/loss/task/a": a, "eval/loss/task/b": b, "eval/loss": overall}


def result(mode, seed, last, weights=(), **more):
    return {"mode": mode, "seed": seed, "evaluations": [{"step": 1, **losses(9, 9, 9)}, {"step": 2, **last}], "weights": list(weights),
            "seconds": 10.0, "probe_seconds": 0.0, "share": None, **more}


def test_a_row_has_the_mean_and_the_deviation_of_the_last_losses_over_seeds(study):
    results = [result("coba", 1, losses(1.0, 3.0, 2.5)), result("coba", 2, losses(2.0, 3.0, 2.7)),
               result("token_mean", 1, losses(0.5, 4.5, 1.0))]
    assert study.table(results, losses(4.0, 6.0, 5.5), ["a", "b"]).splitlines() == [
        "| `balance` | a | b | mean of tasks | all tokens |",
        "|---|---|---|---|---|",
        "| before training | 4.000 | 6.000 | 5.000 | 5.500 |",
        "| `token_mean` | 0.500 | 4.500 | 2.500 | 1.000 |",
        "| `coba` | 1.500 ± 0.707 | 3.000 ± 0.000 | 2.250 ± 0.354 | 2.600 ± 0.141 |",
    ]


def test_costs_are_means_over_runs(study):
    results = [result("coba", 1, losses(1, 1, 1), [[1, 0.5, 0.5], [2, 0.2, 0.8]], probe_seconds=3.0, share=[0.9, 0.1]),
               result("coba", 2, losses(1, 1, 1), [[1, 0.5, 0.5], [2, 0.4, 0.6]], probe_seconds=5.0, seconds=20.0, share=[0.7, 0.3]),
               result("sample_mean", 1, losses(1, 1, 1))]
    assert study.costs(results, ["a", "b"]).splitlines()[2:] == [
        "| `sample_mean` | 1 | 10 | 0.0 | - | - |",
        "| `coba` | 2 | 15 | 4.0 | 0.80 / 0.20 | 0.30 / 0.70 |",
    ]


def step(number, a, b, **more):
    return {"step": number, "loss": 1.0, "tokens/task/a": a, "tokens/task/b": b, **more}


def test_a_task_that_is_absent_from_a_step_has_no_share_of_it(study):
    weights = {"weight/task/a": 1.0, "weight/task/b": 3.0}
    lines = [step(1, 30, 10, **weights), step(2, 30, 0, **weights), {"step": 2, **losses(1.0, 2.0, 1.5)}]
    found = study.measured(lines, ["a", "b"], "task_token_mean")
    assert (found["share"], found["steps_with"], found["tokens"]) == ([0.625, 0.375], {"a": 2, "b": 1}, {"a": 60, "b": 10})
    assert (found["weights"], [line["step"] for line in found["evaluations"]]) == ([[1, 1.0, 3.0], [2, 1.0, 3.0]], [2])


def test_shares_without_weights_are_those_of_tokens(study):
    lines = [step(1, 30, 10), step(2, 10, 0)]
    assert study.measured(lines, ["a", "b"], "token_mean")["share"] == [0.875, 0.125]
    assert study.measured(lines, ["a", "b"], "sample_mean")["share"] is None


def test_warm_up_and_history_of_coba_follow_the_length_of_the_run(study):
    made = study.Study({"a": 1}, 24, 256, 48, 8, 2e-3, 12)
    coba = made.tasks("coba").coba
    assert (coba.every, coba.validation_rows, coba.warmup_probes, coba.history_probes) == (3, 8, 4, 12)
    assert made.tasks("self_paced").self_paced.history_probes == 12
    assert made.tasks("sample_mean").coba is None


def test_only_finished_runs_of_the_same_settings_are_counted(study, tmp_path):
    path = tmp_path / "results.jsonl"
    assert study.results_of(path, ["x"]) == []
    path.write_text("".join(json.dumps({"key": key, "seed": seed}) + "\n" for seed, key in enumerate("xyx")), encoding="utf-8")
    assert [found["seed"] for found in study.results_of(path, {"x": 0, "z": 0})] == [0, 2]


def test_the_command_line_explains_itself(study, capsys):
    with pytest.raises(SystemExit) as stopped:
        study.parser().parse_args(["--help"])
    assert stopped.value.code == 0
    assert "--trial" in capsys.readouterr().out


def test_the_planted_imbalance_is_fifty_to_one(study):
    samples = study.study_of(study.parser().parse_args(["--data", "d", "--out", "o"])).samples
    assert samples == {"code_repair": 600, "text2sql": 12, "docstring_gen": 120}


def test_a_run_is_known_by_its_rows_mode_seed_and_settings(study):
    made, rows = study.Study({"a": 1}, 24, 256, 48, 8, 2e-3, 12), SimpleNamespace(sha256="x")
    longer = study.Study({"a": 1}, 24, 256, 60, 8, 2e-3, 12)
    keys = [study.key_of(made, rows, "coba", 1), study.key_of(made, rows, "coba", 2), study.key_of(made, rows, "token_mean", 1),
            study.key_of(longer, rows, "token_mean", 1), study.key_of(made, SimpleNamespace(sha256="y"), "coba", 1)]
    assert len(set(keys)) == 5
    assert keys[0] == study.key_of(made, rows, "coba", 1)
