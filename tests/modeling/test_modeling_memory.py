"""The arithmetic of a step's memory against the tensors of real layers: NF4 products, PEFT's adapters, TRL's head."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.memory import (
    StepShape,
    adapter_parameters,
    head_bytes,
    nf4_bytes,
    saved_bytes,
    weight_bytes,
    workspace_bytes,
)
from mft.modeling.recompute import Recompute, every
from mft.modeling.shape import shape_of

ROOT = Path(__file__).resolve().parents[2]
LARGE = {"model_type": "llama", "num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64,
         "num_key_value_heads": 8, "vocab_size": 32000}
SMALL = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8,
         "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 512}
TOKENS = 96


@pytest.fixture(scope="module")
def bench():
    """scripts/bench/memory.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        spec = importlib.util.spec_from_file_location("bench_memory", ROOT / "scripts" / "bench" / "memory.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def a_step(config=SMALL, *, tokens=TOKENS, attention="sdpa", device="cpu", quantization=None, **adapter) -> StepShape:
    return StepShape(shape_of(config), quantization or QuantizationConfig(), AdapterConfig(**adapter), tokens, attention, device)


@pytest.mark.parametrize(("config", "options"), [
    (SMALL, {"rank": 8, "dropout": 0.05}),
    (SMALL, {"rank": 8, "dropout": 0.0}),
    (SMALL, {"rank": 8, "dropout": 0.0, "targets": "release_2023"}),
    (SMALL, {"rank": 4, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}),
    (SMALL, {"rank": 8, "dropout": 0.0, "attention": "eager"}),
    (SMALL, {"rank": 8, "dropout": 0.05, "type": "dora"}),
    (SMALL, {"rank": 8, "dropout": 0.0, "type": "dora"}),
    (SMALL, {"rank": 8, "dropout": 0.05, "quantization": QuantizationConfig(type="none", compute_dtype="fp32")}),
    ({**SMALL, "model_type": "qwen2", "num_key_value_heads": 8}, {"rank": 8, "dropout": 0.05}),
    ({**SMALL, "model_type": "qwen3", "head_dim": 48}, {"rank": 8, "dropout": 0.05}),
    (SMALL, {"type": "full", "quantization": QuantizationConfig(type="none")}),
])
@pytest.mark.parametrize("levels", [("keep", "keep"), ("norms", "keep"), ("attention", "norms"), ("mlp", "mlp"), ("full", "full")])
def test_what_is_kept_and_the_peak_are_as_counted_on_real_layers(bench, config, options, levels):
    step, recompute = a_step(config, **options), Recompute(levels)
    counted = bench.count_step(config, 2, step, recompute=recompute)
    peak = saved_bytes(step, recompute) + max(head_bytes(step), workspace_bytes(step, recompute))
    assert saved_bytes(step, recompute) == pytest.approx(counted.saved, rel=0.05)
    if step.full:   # the weights' own gradients come to it while the layers are gone through
        assert 0.95 * peak <= counted.peak <= peak + 4 * step.shape.parameters
    else:
        assert peak == pytest.approx(counted.peak, rel=0.05)


def test_the_34b_shape_has_the_weights_that_are_known_of_it():
    step = a_step(LARGE, tokens=4096, attention="flash", device="cuda", rank=64, alpha=64)
    assert step.shape.linear_parameters == 33_218_887_680
    assert step.shape.parameters == 33_743_970_304
    assert [adapter_parameters(a_step(LARGE, rank=rank)) for rank in (16, 32, 64, 96)] == [
        108_920_832, 217_841_664, 435_683_328, 653_524_992]
    assert adapter_parameters(a_step(LARGE, rank=32, targets="release_2023")) == 203_685_888
    # 17.1 GB of double-quantised linear layers (18.7 without), 1.05 GB of embedding and head: 18.2 (REFERENCE: performance)
    assert weight_bytes(step) == pytest.approx(18.2e9, rel=0.005)
    assert weight_bytes(replace(step, quantization=QuantizationConfig(double_quant=False))) == pytest.approx(19.75e9, rel=0.005)


def test_checkpoints_of_the_34b_shape_take_0_79_mb_a_token_and_naive_autograd_11_3():
    step = a_step(LARGE, tokens=4096, attention="flash", device="cuda", rank=64, dropout=0.0)
    assert saved_bytes(step, every("full", 48)) / 4096 == pytest.approx(0.79e6, rel=0.07)   # the last norm and the head's input come to it
    bare = saved_bytes(replace(step, adapter=AdapterConfig(rank=1, dropout=0.0)), every("keep", 48)) / 4096
    # The 11.3 MB take the norms' input in 16 bits, and do not count the result of the MLP's activation function.
    norms, activation = 48 * 2 * 2 * 8192, 48 * 2 * 22016
    assert bare - norms - activation == pytest.approx(11.3e6, rel=0.03)


def test_a_tensor_in_nf4_has_the_bytes_that_bitsandbytes_gives_it():
    import bitsandbytes
    import torch

    for double in (False, True):
        weight = bitsandbytes.nn.Params4bit(torch.randn(192, 320), requires_grad=False, compress_statistics=double, quant_type="nf4")
        stored = weight.to("cpu")
        state = stored.quant_state
        parts = [stored.data, state.absmax, state.code, *([state.state2.absmax, state.state2.code, state.offset] if double else [])]
        assert nf4_bytes(192 * 320, double=double) == sum(part.nbytes for part in parts)
