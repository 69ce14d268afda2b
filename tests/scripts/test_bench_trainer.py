"""The trainer's benchmark compares equal work: same ids, same tokens, same losses, or no ratio."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mft.data.config import RecipeConfig
from mft.data.pipeline import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench():
    """scripts/bench/trainer.py; the environment that it sets is put back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
            patch.setenv(name, "1")
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        spec = importlib.util.spec_from_file_location("bench_trainer", ROOT / "scripts" / "bench" / "trainer.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        patch.setattr(module, "pin_to_one_cpu", lambda: None)
        yield module


class FixedWork:
    steps = 2

    def tokens_of_step(self, step):
        return (100, 90)[step]


def seen(bench, **changes):
    facts = {"wall_s": [1.0, 3.0], "cpu_s": [1.0, 2.5], "losses": [2.0, 1.0], "tokens": [100, 90], "ids_sha256": "a", **changes}
    return bench.Seen(**facts)


def test_equal_work_passes_with_the_largest_difference_of_the_compared_losses(bench):
    pair = {"mft": seen(bench, losses=[2.001, 1.5]), "trl": seen(bench)}
    assert bench.check_same_work(FixedWork(), pair, [0]) == pytest.approx(5e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"losses": [2.003, 1.0]}, "losses differ"), ({"losses": [float("nan"), 1.0]}, "losses differ"),
    ({"tokens": [100, 91]}, "tokens by step"), ({"wall_s": [1.0]}, "1 optimizer steps"), ({"ids_sha256": "b"}, "other ids")])
def test_other_work_is_a_disagreement(bench, changes, message):
    for name in ("mft", "trl"):
        pair = {"mft": seen(bench), "trl": seen(bench), name: seen(bench, **changes)}
        with pytest.raises(bench.Disagreement, match=message):
            bench.check_same_work(FixedWork(), pair, [0, 1])


def test_a_disagreement_prints_no_ratio_and_exits_with_3(bench, monkeypatch, capsys):
    def disagree(_):
        raise bench.Disagreement("losses differ")

    monkeypatch.setattr(bench, "run", disagree)
    assert bench.main([]) == 3
    assert capsys.readouterr().out == ""
    assert bench.main(["--warmup", "0"]) == 2


def test_seconds_are_counted_from_the_end_of_the_warm_up(bench):
    assert seen(bench).seconds(1) == {"wall_s": 2.0, "cpu_s": 1.5}


@pytest.mark.parametrize(("pairs", "low", "high", "coverage"), [
    (5, 1, 5, 0.9375), (6, 1, 6, 0.96875), (7, 1, 7, 0.984375), (9, 2, 8, 0.9609375), (20, 6, 15, 0.9586105)])
def test_the_interval_is_that_of_the_sign_test(bench, pairs, low, high, coverage):
    one = bench.median_interval([float(value) for value in range(pairs, 0, -1)])
    assert (one["median"], one["low"], one["high"]) == ((pairs + 1) / 2, low, high)
    assert one["coverage"] == pytest.approx(coverage)


@pytest.mark.slow
def test_both_trainers_do_the_same_work_and_a_ratio_comes_out(bench, shared_data, tiny_base, tmp_path):
    tasks = {name: {"sources": [{"type": "jsonl", "path": str(shared_data / "mft" / f"{name}.jsonl.gz")}]}
             for name in ("text2sql", "code_repair")}
    data = tmp_path / "data"
    build(RecipeConfig.model_validate({"name": "bench", "tasks": tasks, "split": {"validation": 0.01, "by": "id"}}), data)
    result = bench.run(bench.parse(["--data", str(data), "--pairs", "1", "--steps", "1", "--rows", "2", "--context", "256"]))
    assert result["largest_loss_difference"] < 1e-3
    assert 0.2 < result["mft_is_times_as_fast"]["wall_s"]["median"] < 5
    assert 256 < result["tokens"] <= 512
