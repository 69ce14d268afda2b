"""The loading rule, the parity gate, and text that comes back as it went in."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

from mft.errors import FormatError, TokenizerError
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import TextTokenizer, load_tokenizer, read_tokenizer
from mft.tokenization.parity import HARD_TEXTS, parity_gate

LLAMA_NORMALIZER = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
NAMES = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>"}


def tiny_llama(folder: Path, extra: tuple[str, ...] = (), **parts: object) -> Path:
    """A Llama-style folder whose pieces are the 256 bytes, a few characters and `extra`."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh", *extra]
    model = models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = parts.get("normalizer", normalizers.Sequence(LLAMA_NORMALIZER))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(parts.get("config", NAMES)))
    return folder


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder: Path) -> TextTokenizer:
    return load_tokenizer(llama2_tokenizer_folder)


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> list[dict]:
    with gzip.open(shared_data / "tokenizer" / "llama_golden.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_ids_are_those_of_sentencepiece_on_all_golden_texts(llama2, golden):
    assert len(golden) == 463
    assert llama2.encode_texts([row["text"] for row in golden]) == [row["ids"] for row in golden]


def test_decode_gives_back_every_golden_text(llama2, golden):
    # U+2581 is the vocabulary's own space: SentencePiece gives 'a▁b' the ids of 'a b', so no decoder can tell them apart.
    assert [row["text"] for row in golden if llama2.decode(row["ids"]) != row["text"]] == ["▁", "a▁b"]
    assert llama2.encode_text("a▁b") == llama2.encode_text("a b")


def test_a_continuation_gives_back_every_golden_text_and_joins_its_prompt(llama2, golden):
    prompt = llama2.encode_text("def f():\n")
    for row in (row for row in golden if "▁" not in row["text"]):
        ids = llama2.encode_continuation(row["text"])
        assert llama2.decode_continuation(prompt, ids) == row["text"]
        assert llama2.decode(prompt + ids) == "def f():\n" + row["text"]


def test_control_tokens_and_ids_are_read_from_the_config(llama2, llama2_tokenizer_folder):
    assert (llama2.bos_token, llama2.eos_token, llama2.unk_token, llama2.pad_token) == ("<s>", "</s>", "<unk>", "<unk>")
    assert (llama2.bos_id, llama2.eos_id, llama2.unk_id, llama2.pad_id) == (1, 2, 0, 0)
    assert (llama2.family, llama2.vocab_size, llama2.folder) == ("llama", 32000, llama2_tokenizer_folder)
    assert llama2.sha256 == "959f1fc6b3dc48d0608c805a28c6f9ba454f16c26730e51c4222008b98fc6a7b"


def test_control_text_is_encoded_as_ordinary_pieces(llama2):
    assert llama2.encode_text("</s>") == [1533, 29879, 29958]
    assert llama2.encode_text("a</s>b") == [263, 829, 29879, 29958, 29890]
    assert llama2.control_id("</s>") == 2
    with pytest.raises(TokenizerError, match="'<step>' is not a control token of this tokenizer; it has <unk>, <s>, </s>"):
        llama2.control_id("<step>")


def test_indentation_survives_decoding_in_context(llama2):
    assert llama2.encode_continuation("    return 1\n") == [1678, 736, 29871, 29896, 13]
    assert llama2.decode_continuation([13], [1678, 736, 29871, 29896, 13]) == "    return 1\n"
    assert llama2.decode([1678, 736, 29871, 29896, 13]) == "   return 1\n"   # from the start of a row the first space is the prefix
    assert llama2.decode([1, 1678, 736, 2, 15043], skip_control=True) == "   returnHello"
    assert llama2.decode_continuation([5, 1], [15043, 2]) == "Hello</s>"


def test_a_character_cut_in_half_does_not_damage_its_neighbours(llama2):
    ids = llama2.encode_continuation("\n\n😀😀")
    assert llama2.decode_continuation([13], ids[:-1]) == "\n\n😀\ufffd"


def test_the_codellama70b_folder_gives_the_same_ids_whatever_class_its_config_names(shared_data, llama2, tmp_path, golden):
    source = shared_data / "tokenizer" / "codellama70b"
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress((source / "tokenizer.json.gz").read_bytes()))
    shutil.copyfile(source / "tokenizer_config.json", tmp_path / "tokenizer_config.json")
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.control_id("<step>")) == (32016, 32015)
    assert tokenizer.encode_texts([row["text"] for row in golden]) == [row["ids"] for row in golden]


def test_a_byte_level_vocabulary_loads_and_round_trips(deepseek_tokenizer_folder, golden):
    tokenizer = load_tokenizer(deepseek_tokenizer_folder)
    assert (tokenizer.family, tokenizer.eos_token, tokenizer.eos_id) == ("byte_level", "<|EOT|>", 32021)
    assert (tokenizer.bos_id, tokenizer.unk_id, tokenizer.pad_id) == (32013, None, 32014)
    texts = [*(row["text"] for row in golden), *HARD_TEXTS, "<|EOT|> <|User|>", "põe"]
    for text, ids in zip(texts, tokenizer.encode_texts(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_continuation([100], tokenizer.encode_continuation(text)) == text
        assert not set(ids) & tokenizer.control.keys()
    assert tokenizer.encode_text("<|EOT|>") == [27, 91, 36, 2778, 91, 29]   # '<', '|', 'E', 'OT', '|', '>'


def test_the_gate_passes_on_good_folders_and_names_its_checks(llama2, deepseek_tokenizer_folder, tmp_path):
    assert [(check.name, check.ok) for check in parity_gate(llama2)] == [
        ("golden ids", True), ("round trip", True), ("control tokens in text", True), ("same ids as the raw file", True),
        ("newline only as a byte piece", True), ("newline is a boundary", True)]
    assert [check.name for check in parity_gate(load_tokenizer(deepseek_tokenizer_folder))] == [
        "golden ids", "round trip", "control tokens in text", "same ids as the raw file"]
    assert load_tokenizer(tiny_llama(tmp_path)).vocab_size == 268


def test_pad_is_never_eos(tmp_path):
    assert load_tokenizer(tiny_llama(tmp_path, config={**NAMES, "pad_token": "</s>"})).pad_token == "<unk>"
    assert load_tokenizer(tiny_llama(tmp_path, config={**NAMES, "pad_token": "<s>"})).pad_token == "<s>"
    without = load_tokenizer(tiny_llama(tmp_path, config={"eos_token": "</s>", "pad_token": "</s>"}))
    assert (without.pad_token, without.pad_id, without.bos_id) == (None, None, None)
    with pytest.raises(TokenizerError, match=r"format 'ziya' begins with a BOS, and this tokenizer names no bos_token"):
        format_for("ziya", without)
    with pytest.raises(FormatError, match="'zia' is not a prompt format"):
        format_for("zia", without)


def edit_json(folder: Path, change) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    change(spec)
    (folder / "tokenizer.json").write_text(json.dumps(spec))


@pytest.mark.parametrize(("change", "message"), [
    (lambda spec: spec.update(normalizer=None), "normalizer is none"),
    (lambda spec: spec["normalizer"]["normalizers"].pop(0), "normalizer is Replace and"),
    (lambda spec: spec.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}),
     "pre_tokenizer is Metaspace"),
    (lambda spec: spec["model"].update(byte_fallback=False), "without byte pieces"),
    (lambda spec: spec["model"].update(dropout=0.1), "BPE dropout is 0.1"),
    (lambda spec: spec["model"].update(type="Unigram"), "the model is Unigram; expected BPE"),
    (lambda spec: spec.pop("model"), "it has no 'model'"),
])
def test_a_file_of_no_known_family_is_refused_with_what_was_found(tmp_path, change, message):
    edit_json(tiny_llama(tmp_path), change)
    with pytest.raises(TokenizerError, match=rf"tokenizer.json: .*{message}"):
        load_tokenizer(tmp_path)


def test_a_piece_with_a_newline_fails_the_gate(tmp_path):
    tiny_llama(tmp_path, extra=("a\n",))
    with pytest.raises(TokenizerError, match=r"nothing is trained on it\n  newline only as a byte piece: piece 268 is 'a\\n'"):
        load_tokenizer(tmp_path)


def test_missing_byte_pieces_fail_the_gate(tmp_path):
    tiny_llama(tmp_path)
    edit_json(tmp_path, lambda spec: spec["model"]["vocab"].update({"zz": spec["model"]["vocab"].pop("<0xE4>")}))
    failed = [check.name for check in parity_gate(read_tokenizer(tmp_path)) if not check.ok]
    assert failed == ["round trip", "newline only as a byte piece"]


def test_other_merges_fail_the_built_in_golden_ids(llama2_tokenizer_folder, tmp_path):
    shutil.copytree(llama2_tokenizer_folder, tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path, lambda spec: spec["model"]["merges"].reverse())
    with pytest.raises(TokenizerError, match=r"golden ids: '    return 1\\n' gives \["):
        load_tokenizer(tmp_path)


def test_the_folders_own_golden_file_is_held(tmp_path):
    tiny_llama(tmp_path)
    golden = [{"text": "ab", "ids": [259, 260, 261]}, {"text": " ", "ids": [259, 259]}]
    (tmp_path / "golden_ids.json").write_text(json.dumps(golden))
    assert parity_gate(load_tokenizer(tmp_path))[0] == ("golden ids", True, "2 texts")
    golden[0]["ids"] = [260, 261]
    (tmp_path / "golden_ids.json").write_text(json.dumps(golden))
    with pytest.raises(TokenizerError, match=r"golden ids: 'ab' gives \[259, 260, 261\], not \[260, 261\]"):
        load_tokenizer(tmp_path)
    (tmp_path / "golden_ids.json").write_text('{"text": "ab"}')
    with pytest.raises(TokenizerError, match=r"golden_ids.json: expected a JSON list"):
        load_tokenizer(tmp_path)


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path):
    tiny_llama(tmp_path)
    edit_json(tmp_path, lambda spec: spec.update(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
                 "pad_token": "<unk>"}))
    assert read_tokenizer(tmp_path).encode_text("abcdefgh") == [259, 260, 261, 262, 263, 264, 265, 266, 267]


@pytest.mark.parametrize(("files", "message"), [
    ({}, "has no tokenizer.json$"),
    ({"tokenizer.model": ""}, "has tokenizer.model but no tokenizer.json.*CodeLlamaTokenizerFast"),
    ({"tokenizer.json.gz": ""}, "unpack it first"),
    ({"tokenizer.json": "{"}, "tokenizer.json: is not JSON"),
    ({"tokenizer.json": "[]"}, "is not a file of the tokenizers library"),
])
def test_a_folder_without_a_usable_file_is_answered_with_the_remedy(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


def test_a_path_that_is_no_folder_and_a_config_without_eos_are_refused(tmp_path):
    with pytest.raises(TokenizerError, match="is not a folder"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(TokenizerError, match=r"no eos_token in tokenizer_config.json or special_tokens_map.json"):
        load_tokenizer(tiny_llama(tmp_path, config={"bos_token": "<s>"}))
    with pytest.raises(TokenizerError, match=r"'\[PAD\]' is not a control token"):
        load_tokenizer(tiny_llama(tmp_path, config={**NAMES, "pad_token": "[PAD]"}))


def test_special_tokens_map_is_read_where_the_config_is_silent(tmp_path):
    tiny_llama(tmp_path, config={"tokenizer_class": "LlamaTokenizer"})
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(NAMES))
    assert load_tokenizer(tmp_path).eos_id == 2


def test_the_tokenizer_of_the_built_in_base_passes_the_gate(tiny_base):
    tokenizer = load_tokenizer(tiny_base)
    assert (tokenizer.vocab_size, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (4096, 0, 1, 2, 0)
    assert tokenizer.decode(tokenizer.encode_text("def f(x):\n    return x\n")) == "def f(x):\n    return x\n"
