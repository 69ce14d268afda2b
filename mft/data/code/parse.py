"""The functions of one source text, found by the tree-sitter grammar of its language and cut out by lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tree_sitter import Node, Parser, Query, QueryCursor

from mft.data.code.comments import doc_text, is_doc_start
from mft.data.code.functions import CodeFunction
from mft.data.code.languages import LANGUAGES, CodeLanguage, LanguageSpec
from mft.data.code.names import is_misread_class, qualified_name
from mft.data.code.quality import function_fault
from mft.data.filters.grammars import GRAMMARS, load_parser

WRAPPERS = frozenset({"export_statement", "template_declaration", "lexical_declaration", "variable_declaration", "expression_statement",
                      "ambient_declaration"})
"""What belongs to a function that is its one content: `export`, `template <...>`, `const f = ...;`."""

ATTRIBUTES = frozenset({"attribute_item", "decorator"})
COMMENTS = frozenset({"comment", "line_comment", "block_comment"})


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """`broken`: the tree has errors, inside functions or between them."""

    functions: tuple[CodeFunction, ...]
    broken: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """Rows of a function in its file, from 0, each the first of its part but `last`, which is the last of all."""

    start: int
    doc_start: int
    doc_end: int
    last: int


def parse_code(text: str, path: str, language: CodeLanguage) -> ParsedFile:
    """The functions of a text, nested ones and those with errors included (they say so by their `fault`), in order.

    Rows and columns of the trees count bytes of UTF-8; only whole rows, and the part of the last row up to the function's end, are cut.
    """
    parser, query = _tools(language, path.endswith((".tsx", ".jsx")))
    root = parser.parse(text.encode()).root_node
    captured = {node.id: node for node in QueryCursor(query).captures(root).get("function", []) if not is_misread_class(node)}
    nodes = sorted(captured.values(), key=lambda node: (node.start_byte, -node.end_byte))
    lines = text.split("\n")
    functions = tuple(_function(node, path, language, lines,
                                any(above.id in captured and not above.has_error for above in _above(node))) for node in nodes)
    return ParsedFile(functions, root.has_error)


@cache
def _tools(language: CodeLanguage, markup: bool) -> tuple[Parser, Query]:
    """Parser and query; `markup`: TypeScript with JSX has a grammar of its own."""
    sources = GRAMMARS[language].sources
    parser = load_parser(sources[1 if markup and len(sources) > 1 else 0])
    assert parser.language is not None
    return parser, Query(parser.language, LANGUAGES[language].query)


def _above(node: Node) -> Iterator[Node]:
    parent = node.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def _function(node: Node, path: str, language: CodeLanguage, lines: list[str], nested: bool) -> CodeFunction:
    spec = LANGUAGES[language]
    outer = _outer(node)
    extent = _extent(outer, lines, spec)
    text = doc_text(lines[extent.doc_start:extent.doc_end], spec) if extent.doc_end > extent.doc_start else None
    start = extent.start if text is not None else _without_doc(extent)
    own = (*lines[start:extent.last], _end_of(outer, lines))
    body = _body(node)
    body_start = body.start_point.row + 1 - start if body is not None else len(own)
    doc_start, doc_end = (extent.doc_start - start, extent.doc_end - start) if text is not None else (0, 0)
    fault = function_fault(node, outer, body, lines, own[min(body_start, len(own)):-1], len(own), nested)
    return CodeFunction(path, outer.start_point.row + 1, qualified_name(node, spec), language, own, doc_start, doc_end, body_start, text,
                        fault)


def _without_doc(extent: Extent) -> int:
    """Where a function begins whose comment documents nothing: behind that comment, or with the attributes above it."""
    return extent.doc_end if extent.start == extent.doc_start else extent.start


def _outer(node: Node) -> Node:
    """The node with all that belongs to a function alone: `export const f = (x) => {...};` for the arrow's declarator."""
    while node.parent is not None and node.parent.type in WRAPPERS and _is_only(node, node.parent):
        node = node.parent
    return node


def _is_only(node: Node, parent: Node) -> bool:
    """True when the parent's other children are its parameters and decorators, not a second declaration."""
    return not any(child.type == node.type and child.id != node.id for child in parent.named_children)


def _body(node: Node) -> Node | None:
    """The block of a function in braces, or None: an abstract method, an arrow with an expression, `= default`."""
    value = node.child_by_field_name("value") or node.child_by_field_name("right") or node
    body = value.child_by_field_name("body")
    return body if body is not None and body.child_count and body.children[0].type == "{" else None


def _extent(outer: Node, lines: list[str], spec: LanguageSpec) -> Extent:
    """Attributes, doc comment and attributes again are looked for upwards, row by row without a gap."""
    first, before = _attributes(outer.start_point.row, outer.prev_sibling)
    doc_end = doc_start = first
    while before is not None and before.type in COMMENTS and _last_row(before) == doc_start - 1 and _begins_row(before, lines):
        if not is_doc_start(_row_text(before, lines), spec) or not _goes_on(before, doc_start, doc_end, lines):
            break
        doc_start, before = before.start_point.row, before.prev_sibling
    start, _ = _attributes(doc_start, before)
    return Extent(start, doc_start, doc_end, outer.end_point.row)


def _attributes(row: int, before: Node | None) -> tuple[int, Node | None]:
    """The first row of the attributes that end right above `row`, and the node before them."""
    while before is not None and before.type in ATTRIBUTES and row - 1 <= _last_row(before) <= row:
        row, before = before.start_point.row, before.prev_sibling
    return row, before


def _goes_on(comment: Node, doc_start: int, doc_end: int, lines: list[str]) -> bool:
    """True for the comment next to the function, and for more lines of the same kind above it; a block stands alone."""
    above = _row_text(comment, lines)
    if doc_start == doc_end:
        return True
    below = lines[doc_start].lstrip()
    return all(text.startswith("//") for text in (above, below)) and above.startswith("///") == below.startswith("///")


def _row_text(node: Node, lines: list[str]) -> str:
    return lines[node.start_point.row].lstrip()


def _last_row(node: Node) -> int:
    """The last row of a node; that of a Rust doc comment ends at the start of the next row."""
    return node.end_point.row - (node.end_point.column == 0)


def _begins_row(node: Node, lines: list[str]) -> bool:
    return not lines[node.start_point.row].encode()[:node.start_point.column].strip()


def _end_of(outer: Node, lines: list[str]) -> str:
    """The last row up to the end of the function."""
    return lines[outer.end_point.row].encode()[:outer.end_point.column].decode()
