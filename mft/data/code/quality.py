"""Which functions are worth a row: the same measures as for Python, where they make sense."""

import re
from collections.abc import Sequence
from typing import Final

from tree_sitter import Node

from mft.data.function_limits import MAX_LINES, MIN_BODY_LINES

PLACEHOLDER: Final = re.compile(
    r"throw\s+(?:new\s+)?(?:[\w.:]*(?:UnsupportedOperation|NotImplemented)\w*\b|[\w.:]*\w*(?:Error|Exception|error)\(\s*['\"`]"
    r"(?:not (?:yet )?implemented|unimplemented|todo|abstract))"
    r"|panic!?\(\s*\"(?:not (?:yet )?implemented|unimplemented|todo)|(?:core::|std::)?(?:todo|unimplemented)!|return;$", re.IGNORECASE)
"""A statement that stands for code that is not there."""

ACCESSOR: Final = re.compile(
    r"return\s+(?:\*|&)?(?:this\s*(?:->|\.)\s*|self\.|\w+\.)?\w+;?|return\s*\(?\s*\*?this\s*\)?;?"
    r"|(?:this\s*(?:->|\.)\s*|self\.|\w+\.)?\w+\s*=\s*(?:std::move\()?\w+\)?;?|self|&(?:mut )?self\.\w+")
"""`return this.x;`, `this.x = x;`, `return *this;`: what getters and setters are made of."""

KEYWORDS: Final = frozenset({"if", "else", "for", "while", "switch", "catch", "return", "do", "case"})
"""A `function` with such a name is a statement that the grammar misread, mostly behind a macro."""

MACRO: Final = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")
"""`TEST_F(Shelf, Counts) {`: a call of a macro in the place of a function's head, by the way that macros are written."""

AFTER: Final = re.compile(r"\s*[;,)\]}]*\s*(?://.*|/\*.*\*/\s*)?")
"""What may stand behind a function in its last row: it is no code of another statement."""


def function_fault(node: Node, outer: Node, body: Node | None, lines: list[str], body_lines: Sequence[str], length: int,
                   nested: bool) -> str | None:
    """The first reason why a function is not used, or None.

    Args:
        node: the function; `outer`: with its `export`, `template` or declaration; `body`: its block, None without one.
        lines: those of the file; `body_lines`: those between the braces; `length`: all of the function's, doc comment included.
        nested: it stands inside another function.
    """
    if nested:
        return "nested_function"
    if node.has_error or _is_misread(node):
        return "error_in_function"
    if _is_macro_call(node):
        return "macro_head"
    if body is None:
        return "body_is_not_a_block" if _has_expression(node) else "body_is_a_stub"
    statements = _statements(body)
    if not statements or (len(statements) == 1 and PLACEHOLDER.match(statements[0])):
        return "body_is_a_stub"
    if len(statements) <= 2 and all(ACCESSOR.fullmatch(statement) for statement in statements):
        return "accessor"
    if sum(bool(line.strip()) for line in body_lines) < MIN_BODY_LINES:
        return "body_too_short"
    if length > MAX_LINES:
        return "too_many_lines"
    return None if _stands_alone(outer, body, lines) else "unusual_layout"


def _statements(body: Node) -> list[str]:
    """The texts of a block's statements, comments left out; Go has them one level deeper."""
    children = [child for child in body.named_children if "comment" not in child.type]
    if len(children) == 1 and children[0].type == "statement_list":
        children = [child for child in children[0].named_children if "comment" not in child.type]
    return [(child.text or b"").decode("utf-8", "replace").strip() for child in children]


def _has_expression(node: Node) -> bool:
    """True for an arrow function whose body is one expression."""
    value = node.child_by_field_name("value") or node.child_by_field_name("right") or node
    return value.child_by_field_name("body") is not None


def _is_misread(node: Node) -> bool:
    declarator = node.child_by_field_name("declarator")
    inner = declarator.child_by_field_name("declarator") if declarator is not None else None
    return inner is not None and (inner.text or b"").decode("utf-8", "replace") in KEYWORDS


def _is_macro_call(node: Node) -> bool:
    """True when what stands before the body is no head of a function: `TEST(a, b)`, or a parenthesis that declares no parameters.

    A constructor has no type either, and may be called `URI`: in its class the class has that name, elsewhere it is qualified.
    """
    declarator = node.child_by_field_name("declarator") if node.type == "function_definition" else None
    if declarator is None or declarator.type == "parenthesized_declarator":
        return declarator is not None
    inner = declarator.child_by_field_name("declarator")
    if node.child_by_field_name("type") is not None or inner is None or inner.type != "identifier":
        return False
    name = inner.text or b""
    return MACRO.fullmatch(name.decode("utf-8", "replace")) is not None and _class_name(node) != name


def _class_name(node: Node) -> bytes | None:
    """The name of the class in which a node stands, None outside of classes."""
    above = node.parent
    while above is not None and above.type not in ("class_specifier", "struct_specifier", "union_specifier"):
        above = above.parent
    named = above.child_by_field_name("name") if above is not None else None
    return named.text if named is not None else None


def _stands_alone(outer: Node, body: Node, lines: list[str]) -> bool:
    """True when the function begins its row, its body opens at the end of one and closes at the start of one, and no code follows."""
    before = lines[outer.start_point.row].encode()[:outer.start_point.column]
    opened = lines[body.start_point.row].encode()[body.start_point.column + 1:].decode()
    closing = lines[body.end_point.row].encode()[:body.end_point.column - 1]
    behind = lines[outer.end_point.row].encode()[outer.end_point.column:].decode()
    return not before.strip() and re.fullmatch(r"\s*(?://.*|/\*.*\*/\s*)?", opened) is not None and not closing.strip() \
        and AFTER.fullmatch(behind) is not None
