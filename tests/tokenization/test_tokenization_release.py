"""A released folder gives the right ids to anyone who loads it with plain transformers."""

import gzip
import json

import pytest

from mft import formats
from mft.conversation import Message
from mft.errors import TokenizerError
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import load_tokenizer
from mft.tokenization.release import write_release_tokenizer

MESSAGES = [Message("system", "  Be brief.\n"), Message("user", "    return 1\n"), Message("assistant", "`x`"),
            Message("user", "\n\n  中文😀 \t"), Message("assistant", "ok"), Message("user", " = 3+3? ")]
TURNS = [{"role": message.role, "content": message.content} for message in MESSAGES]


@pytest.fixture(scope="module", params=["codefuse", "ziya"])
def released(request, llama2_tokenizer_folder, tmp_path_factory):
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(llama2_tokenizer_folder)
    prompt_format = format_for(request.param, tokenizer)
    folder = tmp_path_factory.mktemp("release")
    write_release_tokenizer(tokenizer, prompt_format, folder)
    return tokenizer, prompt_format, folder, AutoTokenizer.from_pretrained(folder)


def test_plain_auto_tokenizer_gives_the_golden_ids(released, shared_data):
    *_, auto = released
    with gzip.open(shared_data / "tokenizer" / "llama_golden.jsonl.gz", "rt", encoding="utf-8") as stream:
        golden = [json.loads(line) for line in stream]
    ids = auto([row["text"] for row in golden], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ids == [row["ids"] for row in golden]


def test_apply_chat_template_gives_the_ids_that_were_trained(released):
    tokenizer, prompt_format, _, auto = released
    for end in (2, 4, 6):
        ids = auto.apply_chat_template(TURNS[:end], tokenize=True, add_generation_prompt=True)["input_ids"]
        assert ids == encode_prompt(MESSAGES[:end], prompt_format, tokenizer)


def test_bos_stands_once_where_the_format_has_one_and_nowhere_else(released):
    _, prompt_format, _, auto = released
    text = auto.apply_chat_template(TURNS[:2], tokenize=False, add_generation_prompt=True)
    wanted = [1] if prompt_format.name == "ziya" else []
    assert [index for index in auto.apply_chat_template(TURNS[:2], add_generation_prompt=True)["input_ids"] if index == 1] == wanted
    assert [index for index in auto(text, add_special_tokens=False)["input_ids"] if index == 1] == wanted
    assert auto("x")["input_ids"] == [*wanted, 921]


def test_pad_is_unk_and_the_template_is_written_twice_alike(released):
    _, prompt_format, folder, auto = released
    assert (auto.pad_token, auto.pad_token_id, auto.eos_token_id, auto.bos_token_id) == ("<unk>", 0, 2, 1)
    assert auto.padding_side == "left"
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"] == (folder / "chat_template.jinja").read_text(encoding="utf-8") == prompt_format.chat_template()
    assert auto.chat_template == config["chat_template"]
    assert sorted(path.name for path in folder.iterdir()) == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


def test_a_released_folder_passes_the_gate_again_and_gives_the_same_ids(released):
    tokenizer, _, folder, _ = released
    assert load_tokenizer(folder).encode_text("  x\n    y </s>") == tokenizer.encode_text("  x\n    y </s>")


def test_a_byte_level_tokenizer_is_released_with_its_own_tokens(deepseek_tokenizer_folder, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(deepseek_tokenizer_folder)
    for name in ("codefuse", "ziya"):
        folder = tmp_path / name
        folder.mkdir()
        prompt_format = format_for(name, tokenizer)
        write_release_tokenizer(tokenizer, prompt_format, folder)
        auto = AutoTokenizer.from_pretrained(folder)
        assert auto.apply_chat_template(TURNS, add_generation_prompt=True)["input_ids"] == encode_prompt(MESSAGES, prompt_format, tokenizer)
        assert (auto.eos_token, auto.pad_token) == ("<|EOT|>", "<｜end▁of▁sentence｜>")


def test_a_format_made_for_other_tokens_is_refused(llama2_tokenizer_folder, tmp_path):
    with pytest.raises(TokenizerError, match=r"the format 'codefuse' was made with '<s>' and '<\|EOT\|>'"):
        write_release_tokenizer(load_tokenizer(llama2_tokenizer_folder), formats.get("codefuse", eos="<|EOT|>"), tmp_path)
