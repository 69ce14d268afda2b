"""The encoding benchmark measures equal work: ids and labels of each contestant are mft's, or differ for a proven cause."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVOL, ALPACA = "evol_instruct_code_1.jsonl.gz", "alpaca_en_0_29999.jsonl.gz"
CODEGPT = "codegpt_zh.jsonl.gz={type: pairs, columns: {prompt: user, answer: assistant}}"


@pytest.fixture(scope="module")
def bench():
    """scripts/bench/data.py and the modules beside it; the environment that it sets is put back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
            patch.setenv(name, "1")
        patch.syspath_prepend(str(ROOT / "scripts"))
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        import peers_agreement
        import peers_encoding
        import peers_inputs

        return SimpleNamespace(command=loaded("data"), packing=loaded("packing"), agreement=peers_agreement, encoding=peers_encoding,
                               inputs=peers_inputs)


def loaded(name: str) -> ModuleType:
    """A command of scripts/bench under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "scripts" / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(bench, shared_data, llama2_tokenizer_folder, tmp_path_factory):
    """format -> (inputs, {contestant: what it made}, {contestant: tally}) of about 200 rows."""
    done = {}

    def make(name: str):
        if name not in done:
            folder = tmp_path_factory.mktemp(f"inputs-{name}")
            sources = [bench.inputs.Source.parse(f"{shared_data / 'instruct' / text}") for text in (EVOL, ALPACA, CODEGPT)]
            inputs = bench.inputs.make_inputs(sources, llama2_tokenizer_folder, name, 2048, folder, 67)
            runs = {one.name: bench.command.timed(one(inputs), folder)[0] for one in bench.encoding.CONTESTANTS}
            done[name] = inputs, {key: run[0] for key, run in runs.items()}, {key: run[1] for key, run in runs.items()}
        return done[name]

    return make


@pytest.mark.parametrize("name", ["codefuse", "mftcoder"])
def test_every_difference_between_the_contestants_has_a_proven_cause(bench, made, name):
    inputs, runs, tallies = made(name)
    found = {one.name: one for one in bench.agreement.agreements(inputs, runs)}
    assert set(found) == {one.name for one in bench.encoding.CONTESTANTS} - {"bare encode_batch", "bare encode_batch_fast"}
    rows = len(inputs.conversations)
    assert rows == 201
    for key, one in found.items():
        assert one.rows == rows
        assert one.sound, (key, one.causes)
        assert one.fits(tallies[key]), key
    assert found["mft, word cache"].equal == rows
    assert found["datasets.map + apply_chat_template"].equal == found["trl SFTTrainer, packing"].equal
    if name == "mftcoder":   # its prompts end in a newline, so no token runs over the boundary
        assert set(found["trl SFTTrainer, packing"].causes) <= {"mask: text after the end mark trained"}
    else:
        assert set(found["trl SFTTrainer, packing"].causes) == {"boundary"}
        assert 100 < found["trl SFTTrainer, packing"].equal < rows


def test_the_bare_tokenizer_reads_the_very_text_of_the_rows(made):
    inputs, _, tallies = made("mftcoder")
    bare, ours = tallies["bare encode_batch"], tallies["mft"]
    assert (bare.samples, bare.tokens) == (ours.samples, ours.tokens)
    assert inputs.texts[0].startswith("<s>human\nWrite an SQL query to select names of all employees")


def test_one_changed_label_or_a_word_cache_that_makes_another_store_is_a_disagreement(bench, made):
    inputs, runs, tallies = made("codefuse")
    rows, packed = runs["MFTCoder"]
    first = rows[0]
    spoiled = [type(first)(first.input_ids, (*first.labels[:-1], -100)), *rows[1:]]
    shorter = (runs["mft, word cache"][0].at(64), runs["mft, word cache"][1])
    found = {one.name: one for one in bench.agreement.agreements(
        inputs, {**runs, "MFTCoder": (spoiled, packed), "mft, word cache": shorter})}
    assert found["MFTCoder"].causes["unexplained"] == 1
    assert not found["MFTCoder"].sound
    assert not found["MFTCoder"].fits(tallies["MFTCoder"])
    assert not found["mft, word cache"].sound
    assert found["MFTCoder, bare tokenizer"].sound


def test_a_run_that_loses_a_sample_is_a_disagreement(bench, made, tmp_path):
    inputs, _, tallies = made("codefuse")
    ours = bench.encoding.Ours(inputs)
    lost = bench.encoding.Tally(tallies["mft"].samples + 1, tallies["mft"].tokens, tallies["mft"].trained, tallies["mft"].rows)
    with pytest.raises(bench.command.Disagreement, match="mft, round 1"):
        bench.command.rounds_of([ours], 1, {"mft": lost}, tmp_path)


def test_every_packer_keeps_all_tokens_and_mft_needs_no_more_rows_than_trl(bench):
    packers = bench.packing.packers(None)
    lengths = [min(length, 512) for length in bench.packing.lognormal_lengths(3000, 100, 0.8)]
    found = bench.packing.measure(packers, lengths, 512, 1)
    assert found["mft"]["rows"] <= found["trl bfd, all at once"]["rows"] <= found["trl bfd, per 1000"]["rows"]
    assert found["textbook next-fit (as MFTCoder)"]["fill"] < 0.95 < found["mft"]["fill"] <= 1
    with pytest.raises(Exception, match="1 of 6 tokens are missing"):
        bench.packing.measure({"mft": (lambda lengths, capacity: [[0, 1]], packers["mft"][1])}, [3, 2, 1], 4, 1)


def test_a_sample_longer_than_a_row_is_refused_by_mft_and_cut_by_trl(bench):
    found = bench.packing.overlong(bench.packing.packers(None), [3, 9, 2], 4)
    assert (found["samples"], found["tokens_beyond_capacity"]) == (1, 5)
    assert found["packers"]["mft"]["refused"].startswith("sample 1 has 9 tokens, more than the 4 of a row")
    assert found["packers"]["trl bfd, per 1000"] == {"tokens_lost": 5, "rows_too_long": 0}
