"""What a function is called, with the names of all that it stands in."""

from tree_sitter import Node

from mft.data.code.languages import LanguageSpec

ANONYMOUS = "(anonymous)"
CLASS_TYPES = frozenset({"class_specifier", "struct_specifier", "union_specifier", "enum_specifier"})


def qualified_name(node: Node, spec: LanguageSpec) -> str:
    """`A.B.f`, `a::B::f`, for a method of Go its receiver's type first; without type arguments, white space collapsed."""
    parts = [_own_name(node)]
    parent = node.parent
    while parent is not None:
        field = "declarator" if is_misread_class(parent) else spec.containers.get(parent.type)
        if field:
            parts.append(_bare(parent.child_by_field_name(field)) or ANONYMOUS)
        parent = parent.parent
    return spec.joint.join(reversed(parts))


def is_misread_class(node: Node) -> bool:
    """True for `class EXPORTED Name { ... };`: with a macro in its head the grammars of C and C++ take a class for a function."""
    kind = node.child_by_field_name("type") if node.type == "function_definition" else None
    declarator = node.child_by_field_name("declarator")
    return kind is not None and kind.type in CLASS_TYPES and declarator is not None and declarator.type == "identifier"


def _own_name(node: Node) -> str:
    declarator = node.child_by_field_name("declarator")
    if declarator is not None:
        return _declared(declarator)
    named = next((found for field in ("name", "property", "left", "key") if (found := node.child_by_field_name(field)) is not None), None)
    receiver = node.child_by_field_name("receiver")
    name = _text(named) if named is not None else ANONYMOUS
    return f"{_receiver_type(receiver)}.{name}" if receiver is not None else name


def _declared(node: Node) -> str:
    """The name inside a declarator of C: below pointers, references and parentheses, the part before the parameters."""
    while True:
        inner = node.child_by_field_name("declarator")
        if inner is None and node.type in ("reference_declarator", "parenthesized_declarator"):
            inner = next((child for child in node.named_children if child.type.endswith("declarator")), None)
        if inner is None:
            return _text(node)
        node = inner


def _receiver_type(receiver: Node) -> str:
    """`(s *Stack[T])` gives `Stack`."""
    kind = next((found for child in receiver.named_children if (found := child.child_by_field_name("type")) is not None), None)
    return _bare(kind).lstrip("*") if kind is not None else ANONYMOUS


def _bare(node: Node | None) -> str:
    """A type or class name without type arguments."""
    if node is None:
        return ""
    return _text(node).split("<")[0].split("[")[0].strip()


def _text(node: Node) -> str:
    return " ".join((node.text or b"").decode("utf-8", "replace").split())
