"""GPTQ's layout: numbers survive packing, words are those of AutoGPTQ, a quantised folder computes with what it says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mft.errors import ModelError
from mft.modeling.config import QuantizationConfig
from mft.modeling.gptq_layout import BITS, groups_of, multiplied_out, pack, to_nearest, unpack
from mft.modeling.load import load_base

WHOLE = QuantizationConfig(type="none", compute_dtype="fp32")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [0, 1])
def test_packing_loses_no_number(bits, axis):
    numbers = torch.randint(2**bits, (96, 64), generator=torch.Generator().manual_seed(bits))
    words = pack(numbers, bits, axis)
    assert words.dtype == torch.int32
    assert words.shape == ((96 * bits // 32, 64) if axis == 0 else (96, 64 * bits // 32))
    assert torch.equal(unpack(words, bits, axis), numbers.int())


@pytest.mark.parametrize(("bits", "numbers", "words"), [
    (4, [1, 2, 3, 4, 5, 6, 7, 8], [0x87654321]),
    (8, [1, 2, 3, 255], [0xFF030201]),
    (2, [3, 0, 1, 2] + [0] * 12, [0b10010011]),
    # AutoGPTQ's pattern of three words: the eleventh number has its low 2 bits in the first word and its high bit in the second, the
    # 22nd its low bit in the second and its high two in the third.
    (3, [7] + [0] * 9 + [0b101] + [0] * 10 + [0b110] + [0] * 9 + [7], [0x40000007, 0x00000001, 0xE0000003]),
])
def test_words_are_those_of_autogptq(bits, numbers, words):
    column = torch.tensor(numbers + [0] * (32 - len(numbers)))[:, None]
    packed = [int(word) & 0xFFFFFFFF for word in pack(column, bits)[:, 0]]
    assert packed[:len(words)] == words
    assert packed[len(words):] == [0] * (bits - len(words))


def test_a_number_of_rows_that_words_cannot_hold_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="33 numbers are no multiple of 32"):
        pack(torch.zeros(33, 1), 4)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [-1, 16, 32, 128])
def test_rounding_to_the_nearest_is_off_by_half_a_step_at_most(bits, group):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    parts = to_nearest(weight, bits, group)
    assert parts["scales"].shape == (groups_of(96, group), 64)
    again = multiplied_out(parts["qweight"], parts["qzeros"], parts["scales"], parts["g_idx"], bits)
    step = parts["scales"].float()[parts["g_idx"].long()].t()
    # The grid ends half a step below the largest weight; a scale in fp16 is off by 2^-11 of itself, 2^(bits - 1) times at that end.
    assert ((again - weight).abs() <= step * (0.501 + 2.0 ** (bits - 12))).all()


def test_zero_points_are_stored_minus_one():
    parts = to_nearest(torch.randn(32, 64), 4, 32)
    assert {int(word) & 0xFFFFFFFF for word in parts["qzeros"].flatten()} == {0x77777777}


def test_inputs_out_of_order_find_their_own_group():
    """With act-order g_idx is not sorted: the scale of input i is that of group g_idx[i]."""
    parts = to_nearest(torch.randn(32, 64, generator=torch.Generator().manual_seed(2)), 8, 32)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    plain = multiplied_out(parts["qweight"], parts["qzeros"], parts["scales"], parts["g_idx"], 8)
    shuffled = {"qweight": pack(unpack(parts["qweight"], 8)[order], 8), "g_idx": parts["g_idx"][order]}
    mixed = multiplied_out(shuffled["qweight"], parts["qzeros"], parts["scales"], shuffled["g_idx"], 8)
    assert torch.equal(mixed, plain[:, order])


def quantised(model, folder, bits=4, layout="gptq"):
    """A folder in GPTQ's layout, made here without mft's own writer."""
    folder.mkdir()
    tensors = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            tensors |= {f"{name[:-7]}.{part}": value for part, value in to_nearest(tensor, bits, 32).items()}
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": layout}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_quantised_folder_is_loaded_as_the_weights_that_it_says(small_llama, tmp_path):
    folder = quantised(small_llama, tmp_path / "q")
    loaded, original = load_base(folder, WHOLE), load_base(small_llama, WHOLE)
    name = "model.layers.1.mlp.down_proj"
    parts = to_nearest(original.get_submodule(name).weight.data, 4, 32)
    assert torch.equal(loaded.get_submodule(name).weight.data, multiplied_out(*(parts[each] for each in ("qweight", "qzeros", "scales",
                                                                                                         "g_idx")), 4))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        distance = (loaded(ids).logits - original(ids).logits).abs().max()
    assert 0 < distance < 5


@pytest.mark.parametrize(("bits", "layout"), [(4, "gptq_v2"), (5, "gptq")])
def test_another_layout_is_refused_by_name(bits, layout, small_llama, tmp_path):
    folder = quantised(small_llama, tmp_path / "q", layout=layout)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bits"] = bits
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{bits} bits in the layout '{layout}'; known: 2, 3, 4, 8 bits in the layout 'gptq'"):
        load_base(folder, WHOLE)


def test_a_quantised_base_is_not_quantised_again(small_llama, tmp_path):
    with pytest.raises(ModelError, match="is quantised already \\(gptq\\)"):
        load_base(quantised(small_llama, tmp_path / "q"), QuantizationConfig(type="nf4"))


def test_a_folder_without_a_tensor_is_named(small_llama, tmp_path):
    folder = quantised(small_llama, tmp_path / "q")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has no weights for model.norm.weight"):
        load_base(folder, WHOLE)


def test_a_truncated_file_is_named(small_llama, tmp_path):
    folder = quantised(small_llama, tmp_path / "q")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(folder, WHOLE)
