"""What an infill is in the ids of a Llama vocabulary."""

from tokenizers import Tokenizer

from mft.conversation import Conversation, Message
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_rows
from mft.tokenization.load import load_tokenizer


def test_each_part_begins_with_the_dummy_space_of_a_llama_vocabulary(codellama70b_tokenizer_folder):
    tokenizer = load_tokenizer(codellama70b_tokenizer_folder)
    row = Conversation("row", "fim", (Message("user", "def f("), Message("user", "  return"), Message("assistant", "x):")))
    sample = encode_rows(row, format_for("fim", tokenizer), tokenizer)[0]
    pieces = Tokenizer.from_file(str(codellama70b_tokenizer_folder / "tokenizer.json"))
    assert [pieces.id_to_token(token) for token in sample.input_ids] == [
        "<s>", "▁<PRE>", "▁def", "▁f", "(", "▁<SUF>", "▁▁", "▁return", "▁<MID>", "▁x", "):", "▁<EOT>"]
