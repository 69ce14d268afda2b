"""What is chosen to be recomputed, and how many rows are computed at once: never beyond the room, and never more than is needed."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mft.errors import ConfigError
from mft.files import write_json
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.memory import AUTO_MARGIN, MARGIN, StepShape, again_flops
from mft.modeling.recompute import every
from mft.modeling.shape import shape_of
from mft.training.config import DistributedConfig, TrainingConfig
from mft.training.memory_use import rows_before
from mft.training.step_plan import StepPlanner

ROOT = Path(__file__).resolve().parents[2]
LARGE = {"model_type": "llama", "num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64,
         "num_key_value_heads": 8, "vocab_size": 32000}
SMALL = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 512}
GB = 10**9


@pytest.fixture(scope="module")
def bench():
    """scripts/bench/memory.py, which counts the tensors that are alive between the passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        spec = importlib.util.spec_from_file_location("bench_memory", ROOT / "scripts" / "bench" / "memory.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def planner(step, free=None, *, ranks=1, distributed=None, **training):
    room = float("inf") if free is None else free
    return StepPlanner(step, TrainingConfig(**{"global_batch_rows": 8, **training}), distributed or DistributedConfig(), ranks,
                       fits=lambda memory: AUTO_MARGIN * memory.tensors <= room)


def large(tokens=4096, **adapter):
    options = {"rank": 64, "dropout": 0.0, **adapter}
    return StepShape(shape_of(LARGE), QuantizationConfig(), AdapterConfig(**options), tokens, "flash", "cuda")


@pytest.mark.parametrize(("adapter", "quantization"), [
    (AdapterConfig(rank=8, dropout=0.05), QuantizationConfig()), (AdapterConfig(rank=8, dropout=0.0), QuantizationConfig()),
    (AdapterConfig(rank=4, dropout=0.1, targets=["q_proj", "v_proj"]), QuantizationConfig()),
    (AdapterConfig(rank=8, dropout=0.05, type="dora"), QuantizationConfig()),
    (AdapterConfig(rank=8, dropout=0.05), QuantizationConfig(type="none", compute_dtype="fp32")),
    (AdapterConfig(type="full"), QuantizationConfig(type="none"))], ids=str)
def test_what_is_kept_never_exceeds_the_size_that_is_asked_for(bench, adapter, quantization):
    step = StepShape(shape_of(SMALL), quantization, adapter, 72, "sdpa", "cpu")
    least, most = (planner(step).memory(1, every(level, 4)).activations for level in ("full", "keep"))
    kept = []
    for part in (0.0, 0.15, 0.4, 0.7, 1.0):
        budget = int(MARGIN * (least + part * (most - least))) + 1
        plan = planner(step, recompute=f"{budget}B").plan()
        counted = bench.count_step(SMALL, 4, step, recompute=plan.recompute)
        assert counted.saved <= budget, (part, plan.recompute)
        kept.append(counted.saved)
    assert kept[0] < kept[-1]
    assert not plan.recompute   # all of it fits


def test_a_compiled_layer_is_recomputed_whole_or_not_at_all():
    least, most = (planner(large()).memory(1, every(level, 48)).activations * MARGIN for level in ("full", "keep"))
    middle = f"{int((least + most) / 2)}B"
    assert set(planner(large(), recompute=middle).plan().recompute.levels) - {"full", "keep"}
    assert set(planner(large(), recompute=middle, kernels={"compile": True}).plan().recompute.levels) == {"full", "keep"}


@pytest.mark.parametrize("step", [large(), large(16384), large(dropout=0.05), large(type="dora"),
                                  replace(large(), attention="sdpa", quantization=QuantizationConfig(type="none"))])
def test_more_room_never_recomputes_more(step):
    least, most = (planner(step).memory(1, every(level, 48)).activations * MARGIN for level in ("full", "keep"))
    plans = [planner(step, recompute=f"{int(least + part / 20 * (most - least)) + 1}B").plan() for part in range(21)]
    again = [plan.again for plan in plans]
    assert again == sorted(again, reverse=True)
    assert (again[0], again[-1]) == (1.0, 0.0)
    assert len(set(again)) > 15
    assert all(plan.memory.activations * MARGIN <= least + part / 20 * (most - least) + 1 for part, plan in enumerate(plans))


def test_auto_recomputes_only_what_free_memory_asks_for_and_all_of_it_where_nothing_fits():
    step = large()
    assert str(planner(step, 141 * GB).plan().recompute) == "without recomputation"
    some = planner(step, 60 * GB).plan()
    assert 0 < some.again < 1
    assert some.memory.tensors * AUTO_MARGIN <= 60 * GB
    assert str(planner(step, 20 * GB).plan().recompute) == "with recomputation"


def test_a_part_of_a_layer_is_chosen_where_it_costs_less_than_whole_layers():
    step, room = large(), 60 * GB
    some = planner(step, room).plan()
    assert set(some.recompute.counts()) - {"full", "keep"}
    whole = [every("full", 48)] + [type(some.recompute)(("full",) * n + ("keep",) * (48 - n)) for n in range(48)]
    own = planner(step)
    best = min(choice.total(again_flops(step)) for choice in whole if own.memory(1, choice).tensors * AUTO_MARGIN <= room)
    assert some.recompute.total(again_flops(step)) < 0.95 * best


@pytest.mark.parametrize("distributed", [DistributedConfig(engine="deepspeed", zero_stage=3), DistributedConfig(engine="fsdp")])
def test_sharded_layers_are_recomputed_whole_or_not_at_all(distributed):
    step = replace(large(), quantization=QuantizationConfig(type="none"))
    for room in (5, 20, 35):
        plan = planner(step, recompute=f"{room}GB", distributed=distributed, ranks=2).plan()
        assert set(plan.recompute.counts()) <= {"full", "keep"}


def test_a_size_that_full_recomputation_does_not_keep_to_is_refused_with_what_is_needed():
    with pytest.raises(ConfigError) as raised:
        planner(large(), recompute="1GB", micro_batch_rows=2).plan()
    assert raised.value.problems == ["training.recompute is 1GB, but 2 rows of 4,096 tokens keep 7.20GB with every layer recomputed; give "
                                     "at least that much, or a smaller micro_batch_rows"]
    planner(large(), recompute="7.20GB", micro_batch_rows=2).plan()


@pytest.mark.parametrize(("given", "hint"), [("fulll", "; did you mean 'full'?"), ("12", ""), ("-3GB", "")])
def test_what_recompute_may_be_is_said(given, hint):
    with pytest.raises(ValueError, match="expected auto, full, none or the size of what may be kept, such as 40GB; found "
                                         f"'{given}'" + hint.replace("?", r"\?")):
        TrainingConfig(recompute=given)


# ---- rows at once

def test_rows_at_once_are_as_many_as_fit_without_recomputing_for_it():
    step = large()
    plan = planner(step, 141 * GB, micro_batch_rows="auto").plan()
    assert plan.memory.tensors * AUTO_MARGIN <= 141 * GB
    assert (plan.micro_batch_rows, str(plan.recompute)) == (1, "without recomputation")
    # Four rows would recompute half of the forward pass to save a twentieth of a step.
    assert planner(step, 141 * GB, micro_batch_rows=4).plan().again > 0.4
    assert planner(step, 300 * GB, micro_batch_rows="auto").plan().micro_batch_rows == 4
    small = replace(step, shape=shape_of({**LARGE, "num_hidden_layers": 4}))
    assert planner(small, 141 * GB, micro_batch_rows="auto").plan().micro_batch_rows == 8
    assert planner(small, 141 * GB, micro_batch_rows="auto", ranks=4, global_batch_rows=24).plan().micro_batch_rows == 2


def test_with_a_mask_rows_are_computed_one_by_one():
    """All tokens side by side meet in the mask: the work of attention grows with their number."""
    shape, whole = shape_of({**LARGE, "num_hidden_layers": 4}), QuantizationConfig(type="none")
    step = replace(large(), attention="sdpa", shape=shape, quantization=whole)
    assert planner(step, 141 * GB, micro_batch_rows="auto").plan().micro_batch_rows == 1


def test_a_run_that_goes_on_keeps_its_rows_at_once_unless_its_ranks_cannot_share_them(tmp_path):
    write_json(tmp_path / "trainer_state.json", {"train_batch_size": 4})
    assert rows_before(tmp_path, 8) == 4
    assert rows_before(tmp_path, 2) is None
    assert rows_before(None, 8) is None


def test_the_ranks_agree_on_the_rows_of_the_one_with_the_least_room(monkeypatch):
    from mft.training import memory_use

    job = SimpleNamespace(training=TrainingConfig(global_batch_rows=16, micro_batch_rows="auto"))
    monkeypatch.setattr(memory_use, "plan_on_this_rank", lambda job, ranks: SimpleNamespace(micro_batch_rows=8))
    monkeypatch.setattr(memory_use, "least_of_ranks", lambda rows: min(rows, 2))
    monkeypatch.setattr(memory_use, "replace", lambda job, training: SimpleNamespace(training=training))
    assert memory_use.planned_job(job, 2, None)[0].training.micro_batch_rows == 2
