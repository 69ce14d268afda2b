"""What the comparison of texts undoes, and what it must not undo."""

import pytest

from mft.data.decontamination.normalise import clean, tokenize

CODE = "def f(x):\n    if x[0] >= 1:\n        return 'a'\n"
TOKENS = ["def", "f", "(", "x", ")", ":", "if", "x", "[", "0", "]", ">", "=", "1", ":", "return", "'", "a", "'"]


@pytest.mark.parametrize("text", [
    CODE, CODE.upper(), CODE.replace("    ", "\t"), CODE.replace("\n", "\r\n"), CODE.replace("\n", "\n\n"), CODE.replace(" ", "\u00a0"),
    CODE.replace("x", "\u200bx\ufeff"), CODE.replace("f", "\u202ef\u202c"), CODE.replace("x", "x\ufe0f"), CODE.replace("1", "\x001"),
    CODE.replace("r", "r\u00ad"), CODE.replace("(", "（").replace(":", "："), CODE.replace("f", "ｆ"), CODE.replace("'", '"'),
    CODE.replace("'", "\u2019"), f"```python\n{CODE}```\n", f"~~~\n{CODE}~~~", CODE.replace("'a'", "`'a'`"),
    "".join(f"> {line}\n" for line in CODE.split("\n")), CODE.replace(":\n", ":  # why\n"), f"# what\n{CODE}    # done",
    CODE.replace("\n", "\u2028"),
])
def test_code_has_the_same_tokens_in_every_disguise(text):
    assert tokenize(clean(text), "hash_code") == TOKENS


@pytest.mark.parametrize("text", [CODE.replace("[", "("), CODE.replace(">=", ">"), CODE.replace("1", "2"), CODE.replace("x", "y")])
def test_signs_numbers_and_names_count(text):
    assert tokenize(clean(text), "hash_code") != TOKENS


@pytest.mark.parametrize("text", [
    "// Add x\n// to y.", "/* Add x\n * to y. */", "/**\n * Add x\n * to y.\n */", "# Add x\n# to y.", "-- Add x\n-- to y.",
    '"""Add x\nto y."""',
    "> Add x\n> to y.", "- Add x\n- to y.", "'''Add x\n    to y.'''", "/// Add x\n/// to y.", "ADD X TO Y．",
])
def test_prose_is_the_same_in_every_comment_and_docstring(text):
    assert tokenize(clean(text), "prose") == ["add", "x", "to", "y", "."]


def test_comments_of_c_and_its_children_go_with_their_text():
    text = "int f(int x) { // one\n  /* two\n     three */ return x / 2; }"
    assert "".join(tokenize(clean(text), "slash_code")) == "intf(intx){returnx/2;}"
    assert tokenize(clean("a /* b"), "slash_code") == ["a", "/", "*", "b"]


def test_each_chinese_character_is_a_token_and_words_beside_it_are_whole():
    assert tokenize(clean("把x_1和y２相加。"), "prose") == ["把", "x_1", "和", "y2", "相", "加", "。"]


def test_a_minus_sign_or_star_in_code_is_no_mark_of_a_list():
    assert tokenize(clean("-x\n*args\n- 1"), "hash_code") == ["-", "x", "*", "args", "-", "1"]


@pytest.mark.parametrize("piece", ["/*", "a", "* ", "-", "`", "\u200b", " ", ">", "'"])
def test_a_text_of_one_thing_repeated_is_read_in_linear_time(piece):
    text = piece * 200_000 + "x"
    for view in ("prose", "hash_code", "slash_code"):
        assert len(tokenize(clean(text), view)) <= len(text)
