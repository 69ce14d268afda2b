"""Sizes from config.json alone, against what was published and against files that quantisers wrote."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mft.cli.main import main
from mft.errors import ConfigError
from mft.modeling.gptq_layout import to_nearest
from mft.modeling.known_bases import KNOWN
from mft.modeling.shape import Shape, shape_of
from mft.quantization.config import GptqJob, QuantizeOptions
from mft.quantization.preview import check_jobs, preview
from mft.quantization.size import CARDS, bnb_bytes, cache_bytes, fit_table, full_bytes, grid_bytes, serving_bytes

CODELLAMA_70B = Shape(80, 8192, 28672, 64, 8, 128, 32016)
CODELLAMA_34B = Shape(48, 8192, 22016, 64, 8, 128, 32000)

PUBLISHED_GB = [(4, -1, 35.33, 35318956032), (4, 128, 36.65, 36639096832), (4, 32, 40.66, 40649900032), (3, -1, 26.78, 26761736192),
                (3, 128, 28.03, 28015869952), (3, 32, 31.84, 31826132992)]
"""Bits, group, gigabytes of the branch of TheBloke/CodeLlama-70B-Instruct-GPTQ (its card), bytes of the tensors."""


@pytest.mark.parametrize(("bits", "group", "published_gb", "size"), PUBLISHED_GB)
def test_the_six_published_branches_are_met_within_a_thousandth(bits, group, published_gb, size):
    found = grid_bytes(CODELLAMA_70B, bits, group)
    assert found == size
    assert abs(found / (published_gb * 1e9) - 1) < 0.001


def test_the_4_bit_release_of_the_34b_is_met():
    """gptq_model-4bit-64g: the formula's bytes; 17.67 GiB of the 19.09 GiB that its card measures idle."""
    assert grid_bytes(CODELLAMA_34B, 4, 64) == 18970886144
    assert [round(grid_bytes(CODELLAMA_34B, 4, group) / 1e9, 2) for group in (-1, 128, 32)] == [17.68, 18.32, 20.27]
    assert full_bytes(CODELLAMA_34B) == 67487940608
    assert pytest.approx(17.668, abs=0.001) == 18970886144 / 2**30


@pytest.mark.parametrize(("bits", "expected"), [(2, 9952477184), (8, 35061284864)])
def test_2_and_8_bits(bits, expected):
    """The 34B with groups of 128, counted by hand: linear weights * bits / 8 and, a group, 2 bytes and a zero point; g_idx; the rest."""
    linear, rest = 33_218_887_680, 2 * 525_082_624
    scales_and_zeros = linear // 128 * (2 + bits / 8)
    index = 48 * 4 * (8192 * 6 + 22016)
    assert grid_bytes(CODELLAMA_34B, bits, 128) == linear * bits // 8 + scales_and_zeros + index + rest == expected


def test_a_tied_head_is_counted_once_and_biases_are():
    plain = Shape(2, 64, 128, 4, 2, 16, 512)
    tied = Shape(2, 64, 128, 4, 2, 16, 512, tied=True)
    biased = Shape(2, 64, 128, 4, 2, 16, 512, attention_bias=True)
    assert grid_bytes(plain, 4, 64) - grid_bytes(tied, 4, 64) == 2 * 512 * 64
    assert grid_bytes(biased, 4, 64) - grid_bytes(plain, 4, 64) == 2 * 2 * (64 + 32 + 32)


@pytest.mark.parametrize(("bits", "group"), [(2, 32), (3, 64), (4, 128), (4, -1), (8, 16)])
def test_a_module_of_odd_width_takes_what_the_layout_takes(bits, group, tmp_path):
    """704 inputs are no multiple of 128: the last group is smaller, and has a scale all the same."""
    import torch

    parts = to_nearest(torch.randn(96, 704), bits, group)
    save_file(parts, tmp_path / "a.safetensors")
    stored = sum(tensor.numel() * tensor.element_size() for tensor in load_file(tmp_path / "a.safetensors").values())
    groups = {128: 6, -1: 1, 64: 11, 32: 22, 16: 44}[group]
    assert stored == 704 * 96 * bits // 8 + groups * 96 * 2 + groups * 96 * bits // 8 + 704 * 4


def test_keys_and_values_of_a_token_of_the_34b_are_192_kib():
    assert cache_bytes(CODELLAMA_34B, 1) == 192 * 1024
    assert cache_bytes(CODELLAMA_34B, 3072) / 2**30 == 0.5625


def test_the_4_bit_34b_fits_a_24_gb_card_and_bf16_fits_none_below_80():
    fits = {fit.card: fit.fits[4096] for fit in fit_table(grid_bytes(CODELLAMA_34B, 4, 64), CODELLAMA_34B)}
    assert fits == {"RTX4090": True, "A100-40G": True, "RTX-A6000": True, "A100-80G": True, "H200": True}
    whole = {fit.card: fit.fits[4096] for fit in fit_table(full_bytes(CODELLAMA_34B), CODELLAMA_34B)}
    assert whole == {"RTX4090": False, "A100-40G": False, "RTX-A6000": False, "A100-80G": True, "H200": True}
    assert set(CARDS) == set(fits)


def test_the_longest_context_is_the_last_that_fits():
    size = grid_bytes(CODELLAMA_34B, 4, 64)
    for fit in fit_table(size, CODELLAMA_34B):
        assert serving_bytes(size, CODELLAMA_34B, fit.longest) <= fit.memory_bytes < serving_bytes(size, CODELLAMA_34B, fit.longest + 1)


def test_idle_memory_of_the_card_is_weights_and_a_runtime():
    """The 4-bit card measures 64.89 and 19.09 GiB idle: within half a GiB of what a fit counts without any token."""
    for weights, measured in ((full_bytes(CODELLAMA_34B), 64.89), (grid_bytes(CODELLAMA_34B, 4, 64), 19.09)):
        assert serving_bytes(weights, CODELLAMA_34B, 0) / 2**30 == pytest.approx(measured, abs=0.6)


def test_nf4_of_the_34b_is_as_the_plan_counts_it():
    assert round(bnb_bytes(CODELLAMA_34B, "nf4") / 1e9, 1) == 18.2
    saved = bnb_bytes(CODELLAMA_34B, "nf4", double_quant=False) - bnb_bytes(CODELLAMA_34B, "nf4")
    assert saved == pytest.approx(33.219e9 * 0.373 / 8, rel=0.01)


def test_the_published_matrix_has_its_names_and_main_is_first():
    jobs = [{"bits": bits, "group_size": group} for bits, group, *_ in PUBLISHED_GB]
    found = preview(dict(KNOWN["codellama/CodeLlama-70b-Instruct-hf"]), QuantizeOptions.model_validate({"jobs": jobs}))
    assert [job["name"] for job in found["jobs"]] == [
        "main", "gptq-4bit-128g-actorder_True", "gptq-4bit-32g-actorder_True", "gptq-3bit--1g-actorder_True",
        "gptq-3bit-128g-actorder_True",
        "gptq-3bit-32g-actorder_True"]
    assert [job["bytes"] for job in found["jobs"]] == [size for *_, size in PUBLISHED_GB]
    assert {job["damp"] for job in found["jobs"]} == {0.1}
    assert found["jobs"][0]["label"] == "gptq-4bit--1g-actorder_True"


@pytest.mark.parametrize(("config", "jobs"), [("codellama-70b-gptq-matrix", 6), ("codefuse-codellama-34b-4bits", 3)])
def test_the_shipped_matrices_dry_run_without_a_base(config, jobs, capsys):
    path = Path(__file__).resolve().parents[2] / "configs" / f"{config}.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["--json", "quantize", str(path), "--dry-run"])
    told = json.loads(capsys.readouterr().out)
    assert (ended.value.code, len(told["jobs"])) == (0, jobs)
    assert told["jobs"][0]["bytes"] == {6: 35318956032, 3: 18970886144}[jobs]
    assert all(job["perplexity"] is None for job in told["jobs"])


def test_groups_that_do_not_divide_a_module_are_a_warning():
    """The built-in base has an MLP of 704: 5.5 groups of 128."""
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4,
              "vocab_size": 64}
    options = QuantizeOptions.model_validate({"jobs": [{"bits": 4, "group_size": size} for size in (128, 64, -1)]})
    assert preview(config, options)["warnings"] == [
        "gptq-4bit-128g-actorder_True: 128 does not divide the inputs of down_proj (704): the last group is smaller, which some engines "
        "refuse to load"]


def test_jobs_that_no_quantiser_can_pack_are_all_named_at_once():
    shape = shape_of({"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 96, "intermediate_size": 200, "num_attention_heads": 2,
                      "vocab_size": 64})
    with pytest.raises(ConfigError) as caught:
        check_jobs(shape, [GptqJob(bits=4, group_size=128), GptqJob(bits=3, group_size=32)])
    assert caught.value.problems == [
        "jobs.0: gptq-4bit-128g-actorder_True: gate_proj (96 x 200), up_proj (96 x 200), down_proj (200 x 96): inputs and outputs must be "
        "multiples of 32 to be packed",
        "jobs.0: gptq-4bit-128g-actorder_True: a group of 128, but the model has modules of 96 inputs; take at most 96, or -1",
        "jobs.1: gptq-3bit-32g-actorder_True: gate_proj (96 x 200), up_proj (96 x 200), down_proj (200 x 96): inputs and outputs must be "
        "multiples of 32 to be packed"]
