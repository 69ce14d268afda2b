"""The benchmark of a step prints no figure where the work is not the reference's: faults are planted, and each is seen."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora import LoraLayer

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("memory", "random_llama", "step", "step_contestants", "step_gates", "step_work")


@pytest.fixture(scope="module")
def bench():
    """The modules of scripts/bench/step.py; the environment that they set is put back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
            patch.setenv(name, "1")
        patch.delenv("MFT_SHARED_DATA", raising=False)
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        import step
        import step_contestants
        import step_gates
        import step_work

        yield SimpleNamespace(step=step, contestants=step_contestants, gates=step_gates, work=step_work)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def work(bench):
    return bench.work.make_work("tiny", layers=2, context=64, rows=3, rank=4, nf4=True, dense=False, data=None)


@pytest.fixture(scope="module")
def reference(bench, work):
    return bench.contestants.run_reference(bench.contestants.Spec("reference", "", 1), work)


def faults(bench, work, reference, *, run=None, prepare=None, steps=3, **settings):
    """The gates that mft's trainer does not hold, with a fault planted: in the model, in the settings, or in the work that it is given."""
    spec = bench.contestants.Spec("mft", "", steps, settings)
    seen, found = bench.contestants.run_mft(spec, run or work, prepare)
    return bench.gates.faults_of(work, reference[0], reference[1], seen, found), seen


def test_the_same_work_holds_all_gates_with_and_without_recomputation(bench, work, reference):
    for settings in ({"recompute": "none"}, {"recompute": "full"}, {"micro_batch_rows": 3}):
        found, seen = faults(bench, work, reference, **settings)
        assert found == []
        assert seen.tokens == [work.tokens] * 3
        assert len(seen.seconds()) == len(seen.cpu_seconds()) == 3
    assert bench.contestants.gemm_rate(work) > 0


def scaled(model):
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling["default"] *= 1.5


def without_a_gradient(model):
    parameter = next(p for name, p in model.named_parameters() if "layers.1.mlp.up_proj.lora_A" in name)
    parameter.register_hook(torch.zeros_like)


def turned(model):
    parameter = next(p for name, p in model.named_parameters() if "layers.0.self_attn.v_proj.lora_B" in name)
    parameter.register_hook(lambda gradient: gradient.flip(0))


def too_long(model):
    parameter = next(p for name, p in model.named_parameters() if "layers.0.self_attn.v_proj.lora_B" in name)
    parameter.register_hook(lambda gradient: 2 * gradient)


@pytest.mark.parametrize(("prepare", "said"), [
    (scaled, r"cosine with the reference's gradient below 0\.999: 28 of 28 tensors"),
    (without_a_gradient, r"gradient 0: 1 of 28 tensors, such as .*layers\.1\.mlp\.up_proj\.lora_A"),
    (turned, r"cosine with the reference's gradient below 0\.999: 1 of 28 tensors, such as .*layers\.0\.self_attn\.v_proj\.lora_B"),
    (too_long, r"gradient of another length than the reference's: 1 of 28 tensors, such as .*v_proj\.lora_B.* (1\.99\d|2\.00\d) times")])
def test_a_model_that_computes_something_else_is_seen(bench, work, reference, prepare, said):
    found, _ = faults(bench, work, reference, prepare=prepare)
    assert any(re.search(said, fault) for fault in found), found


def test_a_dropped_row_and_exchanged_ids_are_seen(bench, work, reference):
    dropped, _ = faults(bench, work, reference, run=replace(work, rows=work.rows[:-1]))
    assert any("tokens in a step, and" in fault for fault in dropped)
    (ids, labels), *others = work.samples
    other = [9 if token != 9 else 10 for token in ids]
    exchanged, _ = faults(bench, work, reference, run=replace(work, samples=[(other, labels), *others]))
    assert "other ids than those that are given" in exchanged


def test_a_loss_that_does_not_fall_is_seen(bench, work, reference):
    found, _ = faults(bench, work, reference, learning_rate=1e-15)
    assert found == ["the loss does not fall in 3 steps"]


def test_timed_steps_that_differ_from_the_proof_are_seen(bench):
    seen = bench.contestants.Seen
    proof = seen(losses=[2.0, 1.5, 1.2], ids=["a", "a", "a"])
    assert bench.gates.timing_faults(proof, seen(losses=[2.0, 1.5], ids=["a", "a"])) == []
    assert bench.gates.timing_faults(proof, seen(losses=[2.0, 1.6], ids=["a", "b"])) == [
        "the timed steps had other ids than the proof's", "a timed step had the loss 1.600000, and 1.500000 in the proof"]
    assert bench.gates.timing_faults(proof, seen(losses=[float("nan")], ids=["a"]))


def test_a_contestant_that_fails_a_gate_has_no_figure_and_the_exit_code_is_3(bench, work, monkeypatch, capsys):
    """The processes are replaced: the reference's loss is 2, one contestant's is 2.1, the other's fits."""
    names = {"mft": 2.0, "trl": 2.1}
    monkeypatch.setattr(bench.step, "PEERS", {name: (name, {}) for name in names})

    def process(self, name, steps, gradients=None):
        ids = torch.tensor(sorted(token for sample, _ in self.work.samples for token in sample))
        digest = bench.gates.hashlib.sha256(ids.numpy().tobytes()).hexdigest()
        if gradients:
            torch.save({"w": torch.ones(2)}, gradients)
        first, clock = names.get(name, 2.0), [float(second) for second in range(steps + 1)]
        return bench.contestants.Seen(losses=[first - 0.1 * n for n in range(steps)], tokens=[self.work.tokens] * steps,
                                      ids=[digest] * steps, clock=clock, cpu=clock, gemm_flops=1e9, chosen="as planned")

    monkeypatch.setattr(bench.step.Bench, "process", process)
    assert bench.step.main(["--shape", "tiny", "--context", "32", "--rows", "2", "--rank", "2", "--data", "nowhere"]) == 3
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("|")}
    assert "no figure" in lines["trl"]
    assert "the first loss is 2.100000, and 2.000000 in the reference" in lines["trl"]
    assert "as planned" in lines["mft"]
    assert not any(character.isdigit() for character in lines["trl"].split("|")[2])


@pytest.mark.slow
def test_a_peer_without_enough_memory_is_shown_as_oom_and_the_others_are_timed(bench, capsys):
    """Real processes; torch alone takes more than a GB of address space, so that the first tensor is refused."""
    few = ["--layers", "1", "--context", "256", "--rows", "2", "--rank", "2", "--repeats", "1", "--rounds", "1", "--proof-steps", "2"]
    code = bench.step.main([*few, "--only", "mft,trl packed", "--peer-memory", "1GB", "--json"])
    result = json.loads(capsys.readouterr().out)["contestants"]
    assert code == 0
    assert result["trl packed"] == {"oom": True}
    assert result["mft"]["tokens_per_s"] > 0
