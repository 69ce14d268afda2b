"""FLOPs of a token against counts made by hand, and the devices whose peak is known."""

import numpy as np
import pytest

from mft.training.utilization import Utilization, flops_per_token, mean_keys, peak_flops

SHAPE_34B = {"num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64, "num_key_value_heads": 8,
             "vocab_size": 32000}


def test_a_frozen_base_needs_four_and_a_trained_one_six_flops_a_weight():
    linear, head = 33.219e9, 0.262e9
    assert flops_per_token(SHAPE_34B, keys=0, adapter_parameters=1, trained_share=0) == pytest.approx(4 * linear, rel=1e-4)
    assert flops_per_token(SHAPE_34B, keys=0, trained_share=0) == pytest.approx(6 * linear, rel=1e-4)
    assert flops_per_token(SHAPE_34B, keys=0) - flops_per_token(SHAPE_34B, keys=0, trained_share=0.5) == pytest.approx(3 * head, rel=1e-3)
    lora = flops_per_token(SHAPE_34B, keys=0, adapter_parameters=435_700_000) - flops_per_token(SHAPE_34B, keys=0, adapter_parameters=1)
    assert lora == pytest.approx(6 * 435.7e6)


def test_attention_is_a_fifth_of_a_dense_row_of_16k():
    dense = mean_keys([16384])
    assert dense == 8192.5
    whole, without = (flops_per_token(SHAPE_34B, keys=keys, adapter_parameters=435_700_000) for keys in (dense, 0))
    assert whole - without == 12 * 48 * 8192 * 8192.5
    assert (whole - without) / whole == pytest.approx(0.22, abs=0.005)


def test_samples_of_a_packed_row_do_not_attend_to_each_other():
    assert mean_keys(np.full(100_000, 16384, dtype=np.int32)) == 8192.5   # their squares do not fit in 32 bits
    assert mean_keys([4096]) == 2048.5
    assert mean_keys([512] * 8) == 256.5
    assert mean_keys([1, 3]) == (1 + 1 + 2 + 3) / 4


@pytest.mark.parametrize(("name", "tera"), [
    ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756),
    ("NVIDIA H100 NVL", 835), ("NVIDIA H200", 989), ("NVIDIA H200 NVL", 835), ("NVIDIA GH200 480GB", 989), ("NVIDIA B200", 2250),
    ("NVIDIA A10", 125), ("NVIDIA L40S", 362), ("NVIDIA A40", 149.7), ("NVIDIA A10G", None), ("Tesla V100-SXM2-32GB", None), ("cpu", None)])
def test_a_device_is_known_by_whole_words_of_its_name(name, tera):
    peak = peak_flops(name)
    assert peak == (None if tera is None else pytest.approx(tera * 1e12))


def test_utilization_is_the_part_of_all_devices_peaks():
    assert Utilization(200e9, 1000e12).mfu(4000, ranks=2) == pytest.approx(0.4)
    assert Utilization(200e9, None).mfu(4000) is None
