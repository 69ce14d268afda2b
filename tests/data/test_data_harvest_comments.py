"""The text of doc comments: what is taken off, what is left out, and how much of it describes the function."""

import pytest

from mft.data.code.comments import doc_text
from mft.data.code.description import described_characters, docstring_characters
from mft.data.code.languages import LANGUAGES
from mft.data.code.parse import parse_code
from mft.data.harvest import harvest
from mft.data.ledger import Ledger


@pytest.mark.parametrize(("language", "comment", "text"), [
    ("go", "// Sum adds all boxes.\n// The rule is:\n//\n//\ttotal = a + b\n//\n// It never fails.",
     "Sum adds all boxes.\nThe rule is:\n\n\ttotal = a + b\n\nIt never fails."),
    ("go", "// Errors gives all of them.\n// Example:\n//\tc.Add(1)\n//\tc.Add(2)\n//\tc.Errors()",
     "Errors gives all of them.\nExample:\n\tc.Add(1)\n\tc.Add(2)\n\tc.Errors()"),
    ("typescript", "/**\n *Moves the box.\n * It has to be open.\n * It stays open.\n */",
     "Moves the box.\nIt has to be open.\nIt stays open."),
    ("cpp", "// Opens it:\n//  1. the lid,\n//  2. the box.", "Opens it:\n 1. the lid,\n 2. the box."),
    ("c", "/* Opens the box, which\n * may be empty.\n     or torn.\n * Never fails. */",
     "Opens the box, which\nmay be empty.\n    or torn.\nNever fails."),
    ("c", "/*\n** opens the box\n** and the lid\n*/", "opens the box\nand the lid"),
    ("c", "/* Opens, one after another:\n     * the lid,\n     * the box.\n   Never fails. */",
     "Opens, one after another:\n  * the lid,\n  * the box.\nNever fails."),
    ("java", "    /**\n     * Opens:\n     *  * the lid,\n     *  * the box.\n     */", "Opens:\n * the lid,\n * the box."),
    ("c", "/*\nOpens the box.\n    f(box)\n*/", "Opens the box.\n    f(box)"),
], ids=["go-code", "go-more-code", "a-line-without-the-space", "list", "a-line-without-its-star", "two-stars", "stars-are-a-list",
        "list-in-a-frame", "code-without-a-frame"])
def test_markers_go_from_every_line_and_indentation_stays(language, comment, text):
    assert doc_text(comment.split("\n"), LANGUAGES[language]) == text


@pytest.mark.parametrize(("language", "comment", "text"), [
    ("go", "// ==== from shelf.go ====\n// Opens the box.", "Opens the box."),
    ("go", "// === open(lid) (box) ===", None),
    ("c", "/*---------------- boxes ----------------*/", None),
    ("go", "// Opens the box.\n// TODO(ann): and the lid,\n// some day.\n//\n// Never fails.", "Opens the box.\n\nNever fails."),
    ("java", "/**\n * Opens the box.\n * TODO and the lid\n * @param box what is opened\n */", "Opens the box.\n@param box what is opened"),
    ("java", "/**\n * Opens the box.\n * <p>\n * TODO move it\n * </p>\n *\n * @since 3\n */", "Opens the box.\n\n@since 3"),
    ("java", "/** Writes the todo list. */", "Writes the todo list."),
    ("cpp", "/**\n * \\brief Opens the box.\n *\n * \\ingroup shelf\n * \\param box  what is opened\n */",
     "Opens the box.\n\n\\param box  what is opened"),
    ("c", "/// @brief\n/// Opens the box.\n/// @{", "Opens the box."),
    ("c", "/** @file\n * Boxes and lids.\n */", None),
    ("java", "/**\n * Opens it.\n * @internal\n */", "Opens it.\n@internal"),
], ids=["title-above", "title-alone", "title-in-a-block", "remark", "remark-before-a-tag", "remark-in-html", "a-word", "doxygen",
        "doxygen-lines", "of-the-file", "tags-of-others-stay"])
def test_what_no_reader_needs_is_left_out(language, comment, text):
    assert doc_text(comment.split("\n"), LANGUAGES[language]) == text


@pytest.mark.parametrize("text", [
    "@param {Box[]} boxes\n@param {number} [limit=3] - the limit of the search\n@return {object}",
    "See https://example.org/boxes/openTheBox",
    "For the limits of this and of other ways, see\nhttps://example.org/boxes",
    "Created in response to\nhttp://example.org/issues?id=17",
    "{@inheritDoc}\n\n@since 2.9.0",
    "@see OutputStream#close()",
    "@throws BoxException if the box is empty\n@deprecated It opens the lid alone, use another one.",
    "Same as above, with a lid.",
    "Similar, but for the longest boxes.",
    "Helper functions for storing and reading the boxes.",
    "Series of get and set callbacks for each kind of box.",
    "Must be called with box.lock held.",
    "call with locked box",
    "box.lid must be held when calling this.",
    "@example\nopen(new Box(), new Lid())",
])
def test_links_tags_types_notes_and_what_is_said_of_others_do_not_describe_a_function(text):
    assert described_characters(text) == 0


@pytest.mark.parametrize(("text", "characters"), [
    ("Opens the box of https://example.org/boxes", 16),
    ("Opens it.\n@param {Box} box  the box\n@returns {void}", 16),
    ("@returns {boolean} Whether it is open.", 19),
    ("@name open\n@summary Opens the box.", 14),
    ("@param {Box} box The box to be opened by this.\n@return {number} Weight.", 7),
    ("Weighs it.\n@param {Box} box The box.\n@return {number} Weight.", 25),
    ("Same as `open`, for lids.", 25),
    ("Must be called with box.lock held. Opens the box.", 14),
    ("Methods adds a matcher.", 23),
])
def test_what_is_said_of_the_function_counts(text, characters):
    assert described_characters(text) == characters


@pytest.mark.parametrize(("text", "characters"), [
    (".. versionchanged:: 3.2\n   Opens the lid too, where there is one.\n\n.. deprecated:: 4\n   Use `open`.", 0),
    ("Opens it.\n\n.. versionadded:: 3\n   Yes.\n\nAnd the lid.", 22),
    ("@cached opens it.", 17),
    ("Same as above.", 0),
    ("Must be called with box.lock held.", 0),
])
def test_what_a_docstring_says(text, characters):
    assert docstring_characters(text) == characters


@pytest.mark.parametrize("make", ["text2code", "docstring"])
def test_a_doc_comment_that_does_not_describe_gives_no_row(make):
    text = "/**\n * @param {Box[]} boxes\n * @param {number} limit\n */\nfunction open(boxes, limit) {\n  f(boxes);\n  g(limit);\n}\n"
    ledger = Ledger("read")
    assert list(harvest(parse_code(text, "a.js", "javascript").functions, make, make, ledger)) == []
    ledger.close()
    assert dict(ledger.dropped) == {"docstring_too_short": 1}
