"""What a source tree of each language looks like: names of files, functions and classes in its grammar, words of its instructions."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

CodeLanguage = Literal["java", "javascript", "typescript", "go", "c", "cpp", "rust"]
HarvestLanguage = Literal["java", "javascript", "typescript", "go", "c", "cpp", "rust", "python"]
ALL_LANGUAGES: Final[tuple[HarvestLanguage, ...]] = get_args(HarvestLanguage)


@dataclass(frozen=True, slots=True)
class LanguageSpec:
    """One language. `query` captures in its tree-sitter grammar each function (`@function`) that can become a row."""

    title: str
    """Its name in an instruction."""
    query: str
    containers: Mapping[str, str]
    """Node type of a class, module or namespace -> the field that has its name."""
    unit: str = "function"
    doc_word: str = "doc comment"
    joint: str = "."
    """What stands between the parts of a qualified name."""
    doc_marks: tuple[str, ...] = ("/**",)
    """How a comment begins that documents what follows."""
    plain_marks: tuple[str, ...] = ()
    """How other comments begin that are taken for documentation when they stand directly above a function."""
    doxygen: bool = False
    """Its documentation is written for Doxygen."""


_SCRIPT_QUERY: Final = """
(function_declaration) @function (generator_function_declaration) @function (method_definition) @function
(variable_declarator value: [(arrow_function) (function_expression) (generator_function)]) @function
(assignment_expression right: [(arrow_function) (function_expression) (generator_function)]) @function
(pair value: [(arrow_function) (function_expression) (generator_function)]) @function
"""
_JAVA_TYPES: Final = ("class_declaration", "interface_declaration", "enum_declaration", "record_declaration", "annotation_type_declaration")
_C_MARKS: Final = ("/**", "/*!", "///", "//!")
_C_QUERY: Final = "(function_definition) @function"

LANGUAGES: Final[Mapping[CodeLanguage, LanguageSpec]] = MappingProxyType({
    "java": LanguageSpec(
        "Java", "(method_declaration) @function (constructor_declaration) @function (compact_constructor_declaration) @function",
        dict.fromkeys(_JAVA_TYPES, "name"), unit="method", doc_word="Javadoc comment"),
    "javascript": LanguageSpec(
        "JavaScript", _SCRIPT_QUERY + "(field_definition value: (arrow_function)) @function",
        {"class_declaration": "name", "class": "name"}, doc_word="JSDoc comment"),
    "typescript": LanguageSpec(
        "TypeScript", _SCRIPT_QUERY + "(public_field_definition value: (arrow_function)) @function",
        dict.fromkeys(("class_declaration", "abstract_class_declaration", "class", "internal_module", "module"), "name"),
        doc_word="TSDoc comment"),
    "go": LanguageSpec("Go", "(function_declaration) @function (method_declaration) @function", {}, doc_marks=("//", "/*")),
    "c": LanguageSpec("C", _C_QUERY, {}, doc_marks=_C_MARKS, plain_marks=("/*", "//"), doxygen=True),
    "cpp": LanguageSpec(
        "C++", _C_QUERY, dict.fromkeys(("namespace_definition", "class_specifier", "struct_specifier", "union_specifier"), "name"),
        joint="::", doc_marks=_C_MARKS, plain_marks=("/*", "//"), doxygen=True),
    "rust": LanguageSpec("Rust", "(function_item) @function", {"impl_item": "type", "trait_item": "name", "mod_item": "name"},
                         joint="::", doc_marks=("///", "/**")),
})

SUFFIXES: Final[Mapping[str, HarvestLanguage]] = MappingProxyType({
    ".java": "java", ".go": "go", ".rs": "rust", ".py": "python", ".c": "c",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript",
    ".ts": "typescript", ".mts": "typescript", ".cts": "typescript", ".tsx": "typescript",
    ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hh": "cpp", ".hpp": "cpp", ".hxx": "cpp", ".inl": "cpp", ".ipp": "cpp",
})
"""Endings of names; `.h` is C or C++, by what stands in the file (`mft.data.code.files.header_language`)."""
