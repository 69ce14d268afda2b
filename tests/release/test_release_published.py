"""Hashes as others publish them: a card's table in any order of columns, sha256sum's text; nothing else in a card counts."""

import pytest

from mft.errors import DataError
from mft.release.published import published_in, read_published

MD5 = "8d544b1bcb3449934184d4141137329c"
SHA = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"


@pytest.mark.parametrize("text", [
    f"| Model File | SHA256 Value |\n|:---:|:---:|\n| tokenizer.model | {SHA} |",
    f"| SHA256 | File |\n|--|--|\n| `{SHA.upper()}` | `tokenizer.model` |",
    f"File | bytes | sha256\n--- | ---: | ---\n[tokenizer.model](./tokenizer.model) | 499,723 | {SHA}",
    f"```\n{SHA}  tokenizer.model\n```",
    f"{SHA} *tokenizer.model",
])
def test_one_hash_is_read_from_every_form(text):
    assert [(entry.name, entry.kind, entry.digest) for entry in published_in(text)] == [("tokenizer.model", "sha256", SHA)]


def test_a_table_with_md5_and_sha256_gives_both():
    text = f"| file | md5 | sha256 |\n|:--|--:|--:|\n| a.bin | {MD5} | {SHA} |"
    assert [(entry.name, entry.kind, entry.line) for entry in published_in(text)] == [("a.bin", "md5", 3), ("a.bin", "sha256", 3)]


def test_a_hash_in_another_table_is_no_file():
    text = f"| | |\n|:--|:--|\n| sha256 of the rows | {SHA} |\n\n| setting | value |\n|--|--|\n| tokenizer | {SHA} |\n"
    assert list(published_in(text)) == []


def test_names_that_sha256sum_escapes_are_read_back():
    assert [entry.name for entry in published_in("\\" + SHA + "  a\\\\b\\nc")] == ["a\\b\nc"]


def test_a_card_without_hashes_and_one_that_contradicts_itself_are_refused(tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text("# A model\n")
    with pytest.raises(DataError, match=r"CARD.md: has no hash of a file; expected a Markdown table"):
        read_published(card)
    card.write_text(f"{MD5}  a\n{MD5[::-1]}  a\n")
    with pytest.raises(DataError, match=r"CARD.md:2: another md5 of 'a' than in line 1"):
        read_published(card)
    with pytest.raises(DataError, match="No such file"):
        read_published(tmp_path / "absent.md")
