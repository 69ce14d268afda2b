"""Where a completion ends, and what its text is."""

import pytest
import torch

from mft.generation.completion import Completion, complete, stop_position
from mft.generation.stopping import StopWriting
from mft.tokenization.load import load_tokenizer

EOS = 2
PROMPT = "def f():\n"


def ids_after(tokenizer, prompt: str, text: str) -> tuple[list[int], list[int]]:
    return tokenizer.encode_text(prompt), tokenizer.encode_continuation(text)


def test_indentation_survives_decoding(tokenizer):
    prompt, ids = ids_after(tokenizer, PROMPT, "    return 1\n")
    assert complete(prompt, [*ids, EOS], tokenizer, stop_ids=[EOS], stop_strings=[]) == Completion("    return 1\n", tuple(ids), "stop")


def test_indentation_survives_with_the_ids_of_llama(llama2_tokenizer_folder):
    tokenizer = load_tokenizer(llama2_tokenizer_folder)
    ids = [1678, 736, 29871, 29896, 13]
    assert complete(tokenizer.encode_text(PROMPT), ids, tokenizer, stop_ids=[2], stop_strings=[]).text == "    return 1\n"


def test_without_a_stop_the_reason_is_length(tokenizer):
    prompt, ids = ids_after(tokenizer, PROMPT, "    return 1")
    assert complete(prompt, ids, tokenizer, stop_ids=[EOS], stop_strings=["\ndef"]) == Completion("    return 1", tuple(ids), "length")


def test_the_first_stop_token_ends_the_completion_and_is_not_part_of_it(tokenizer):
    prompt, ids = ids_after(tokenizer, PROMPT, "a")
    found = complete(prompt, [*ids, EOS, *ids, EOS], tokenizer, stop_ids=[EOS], stop_strings=[])
    assert found == Completion("a", tuple(ids), "stop")


def test_the_earliest_stop_string_cuts_text_and_ids(tokenizer):
    prompt, ids = ids_after(tokenizer, PROMPT, "    pass\n# end\ndef g():\n")
    found = complete(prompt, ids, tokenizer, stop_ids=[EOS], stop_strings=["\ndef", "\n#"])
    assert (found.text, found.finish_reason) == ("    pass", "stop")
    assert tokenizer.decode_continuation(prompt, found.token_ids) == "    pass"


def test_a_stop_string_at_once_gives_an_empty_completion(tokenizer):
    prompt, ids = ids_after(tokenizer, PROMPT, "<|role_start|>human")
    assert complete(prompt, ids, tokenizer, stop_ids=[EOS], stop_strings=["<|role_start|>"]) == Completion("", (), "stop")


def test_stop_text_in_the_prompt_stops_nothing(tokenizer):
    prompt, ids = ids_after(tokenizer, "<|role_start|>bot<|role_end|>", "yes")
    assert complete(prompt, ids, tokenizer, stop_ids=[EOS], stop_strings=["<|role_start|>"]).text == "yes"


def test_position_of_the_earliest_stop_string():
    assert stop_position("a = 1\n# b\ndef f", ["\ndef", "\n#"]) == 5
    assert stop_position("a = 1", ["\ndef"]) is None
    assert stop_position("a = 1", []) is None


@pytest.mark.parametrize("stop", ["\ndef ", "<|role_start|>", "中文。", " x ="])
@pytest.mark.parametrize("lead", ["", "    y = 2\n" * 6, "日本語" * 9, "\u0301é😀"])
def test_writing_stops_at_the_token_that_completes_the_stop_string(tokenizer, stop, lead):
    prompt, ids = ids_after(tokenizer, PROMPT, f"{lead}{stop}and more {stop}")
    shortest = next(n for n in range(len(ids) + 1) if stop in tokenizer.decode_continuation(prompt, ids[:n]))
    watcher = StopWriting([prompt], tokenizer, stop_ids=[EOS], stop_strings=["\nclass ", stop])
    said = [bool(watcher(torch.tensor([[*prompt, *ids[:n]]]), None)) for n in range(1, len(ids) + 1)]
    assert said == [n >= shortest for n in range(1, len(ids) + 1)]
    assert watcher.written == [ids[:shortest]]


def test_rows_stop_by_themselves_and_keep_only_what_they_wrote(tokenizer):
    watcher = StopWriting([[5], [6]], tokenizer, stop_ids=[EOS, 9], stop_strings=[])
    columns = [[10, 11], [EOS, 12], [77, 13], [78, 9], [79, 80]]
    rows: list[list[int]] = [[5], [6]]
    said = []
    for column in columns:
        rows = [[*row, token] for row, token in zip(rows, column, strict=True)]
        said.append(watcher(torch.tensor(rows), None).tolist())
    assert said == [[False, False], [True, False], [True, False], [True, True], [True, True]]
    assert watcher.written == [[10, EOS], [11, 12, 13, 9]]
