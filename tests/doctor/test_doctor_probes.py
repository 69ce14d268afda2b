"""The probes that look at kernels and weights: a healthy answer, and each thing that they are there to find."""

import json

import pytest


def four_bit(**options):
    from mft.doctor.probes import four_bit as probe

    value, = probe.run(**{"compute_dtype": "fp32", "double_quant": True, "optimizer": "adamw", **options})
    return value


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_4_bit_kernels_agree_with_the_definition(dtype):
    value = four_bit(compute_dtype=dtype, optimizer="adamw_8bit")
    assert value["faults"] == []
    assert set(value["differences"]) == {"dequantised", "double_quant", "output", "gradient of the input", "gradient of A", "gradient of B"}
    assert value["differences"]["dequantised"] < 1e-6
    assert 1e-4 < value["differences"]["double_quant"] < 0.01


def test_the_reference_is_nf4_by_hand():
    import torch

    from mft.doctor.probes.four_bit import nf4_reference

    weight = torch.zeros(1, 64)
    weight[0, :4] = torch.tensor([2.0, -1.0, 0.25, -2.0])
    found = nf4_reference(weight)[0, :5].tolist()
    assert found == pytest.approx([2.0, -1.0501461029052734, 0.3218604028224945, -2.0, 0.0])   # 2 * -.525, 2 * .161; ties go down


@pytest.mark.parametrize(("scale", "shift"), [(1.05, 0.0), (1.0, 0.001), (float("nan"), 0.0)])
def test_weights_that_come_back_wrong_are_found(monkeypatch, scale, shift):
    import bitsandbytes

    right = bitsandbytes.functional.dequantize_4bit
    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", lambda *given, **named: right(*given, **named) * scale + shift)
    assert any(fault.startswith("dequantised differs from the reference by ") for fault in four_bit()["faults"])


def test_a_layer_that_passes_no_gradient_to_its_input_is_found(monkeypatch):
    import bitsandbytes

    forward = bitsandbytes.nn.Linear4bit.forward
    monkeypatch.setattr(bitsandbytes.nn.Linear4bit, "forward", lambda layer, rows: forward(layer, rows.detach()))
    assert [fault.split(" differs")[0] for fault in four_bit()["faults"]] == ["gradient of the input"]


def test_an_8_bit_optimizer_that_does_not_move_is_found(monkeypatch):
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes.optim.AdamW, "step", lambda self: None)
    assert four_bit(optimizer="adamw_8bit")["faults"][0].startswith("three steps of the 8-bit optimizer went from ")


def weights(folder):
    from mft.doctor.probes.weights import run

    value, = run(str(folder))
    return value


def test_the_weights_of_a_base_are_counted(small_llama):
    """2 layers, 64 wide, 128 inside, 4 heads and 2 key heads of 16, a vocabulary of 512."""
    value = weights(small_llama)
    assert value["faults"] == []
    assert value["linear"] == 2 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 128)
    assert value["other"] == 2 * 512 * 64 + 5 * 64
    assert value["edges"] == 2 * (128 + 2 * 96 + 128 + 3 * 192)
    assert value["files"] == ["model.safetensors"]


def test_a_tensor_of_the_index_that_is_in_no_file_is_found(small_llama, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(small_llama / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "model.safetensors", "model.lost.weight": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights(tmp_path)["faults"] == [f"{tmp_path}: 1 tensors of the index are in no file: model.lost.weight"]
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert "is no index of weights" in weights(tmp_path)["faults"][0]
