"""Functions of seven languages: found by their grammars, cut by lines, never rewritten."""

import gzip
import json

import pytest

from mft.data.code.comments import doc_text
from mft.data.code.languages import LANGUAGES
from mft.data.code.parse import parse_code
from mft.data.harvest import harvest
from mft.data.ledger import Ledger

SOURCES = {
    "java": ("Shelf.java", '''\
package a.b;

class Shelf {
    /**
     * Counts the boxes — all of them.
     *
     * @param kind  the  kind
     */
    @Override
    public int  count(String kind) throws E {   // odd  spacing

        int found = 0; String s = "é}";
        for (Box box : boxes) {
            found += box.is(kind) ? 1 : 0;
        }
        return found;
    }
}
'''),
    "javascript": ("shelf.mjs", '''\
/**
 * Counts the boxes — all of them.
 *
 * @param kind  the  kind
 */
export const count = async (kind,  deep) => {   // odd  spacing

  const found = boxes.filter(box => box.kind === kind || `é${"}"}`);
  if (deep) {
    found.push(...inner(found));
  }
  return found.length;
};
'''),
    "typescript": ("shelf.ts", '''\
namespace N {
  export class Shelf<T> {
    /**
     * Counts the boxes — all of them.
     *
     * @param kind  the  kind
     */
    @Logged()
    public count(kind: string): number {   // odd  spacing

      let found = 0, s = "é}";
      for (const box of this.boxes) {
        found += box.kind === kind ? 1 : 0;
      }
      return found;
    }
  }
}
'''),
    "go": ("shelf.go", '''\
package shelf

// Counts the boxes — all of them.
//
// @param kind  the  kind
//
//go:noinline
func (s *Shelf[T]) count(kind string) int {   // odd  spacing

	found, s := 0, "é}"
	for _, box := range s.boxes {
		found += box.is(kind)
	}
	return found
}
'''),
    "c": ("shelf.c", '''\
#include <stdio.h>

/*
 * Counts the boxes — all of them.
 *
 * @param kind  the  kind
 */
static struct box *
count(const char *kind)
{

    int found = 0; char *s = "é}";
    for (int i = 0; i < 3; i++) {
        found += is(i, kind);
    }
    return &boxes[found];
}
'''),
    "cpp": ("shelf.hpp", '''\
namespace n {
class Shelf {
  /// Counts the boxes — all of them.
  ///
  /// @param kind  the  kind
  template <typename T>
  T& count(const std::string& kind) const {   // odd  spacing

    auto s = "é}";
    for (auto& box : boxes) {
      found += box.is(kind);
    }
    return found;
  }
};
}
'''),
    "rust": ("shelf.rs", '''\
#[cfg(x)]
impl<T> Shelf<T> {
    /// Counts the boxes — all of them.
    ///
    /// @param kind  the  kind
    #[inline]
    pub fn count(&self, kind: &str) -> usize {   // odd  spacing

        let s = "é}";
        for b in self.boxes {
            found += b.is(kind);
        }
        found
    }
}
'''),
}
NAMES = {"java": "Shelf.count", "javascript": "count", "typescript": "N.Shelf.count", "go": "Shelf.count", "c": "count",
         "cpp": "n::Shelf::count", "rust": "Shelf::count"}
FIRST = {"java": 9, "javascript": 6, "typescript": 9, "go": 8, "c": 8, "cpp": 6, "rust": 7}
LAST = {"java": 16, "javascript": 12, "typescript": 15, "go": 14, "c": 16, "cpp": 13, "rust": 13}
"""Row of the brace that closes the function, from 0."""
TEXT = "Counts the boxes — all of them.\n\n@param kind  the  kind"


def rows_of(make, language, text, path="a"):
    ledger = Ledger("read")
    rows = list(harvest(parse_code(text, path, language).functions, make, make, ledger))
    ledger.close()
    return rows, dict(ledger.dropped)


def texts(row):
    return tuple(message.content for message in row.messages)


@pytest.mark.parametrize("language", SOURCES)
def test_one_function_of_each_language_gives_the_three_tasks(language):
    path, text = SOURCES[language]
    spec = LANGUAGES[language]
    lines = text.split("\n")
    body = next(index for index, line in enumerate(lines) if "é}" in line or '"é${' in line or "`é" in line)
    last = LAST[language]
    start = next(index for index, line in enumerate(lines) if "Counts" in line) - (language in ("java", "javascript", "typescript", "c"))
    rows = {make: rows_of(make, language, text, path) for make in ("text2code", "docstring", "completion")}
    assert all(dropped == {} for _, dropped in rows.values())
    question, answer = texts(rows["text2code"][0][0])
    head = question.split("\n", 1)
    assert head[0] == f"Write the body of this {spec.title} {spec.unit}."
    assert head[1] == "\n".join(lines[start:body - 1])
    assert answer == "\n".join(lines[body:last + 1])
    question, answer = texts(rows["docstring"][0][0])
    assert answer == TEXT
    assert "Counts" not in question
    assert question.split("\n", 1)[0] == f"Write the {spec.doc_word} of this {spec.title} {spec.unit}."
    question, answer = texts(rows["completion"][0][0])
    assert question.split("\n", 1)[1] + "\n" + answer == "\n".join(lines[start:last + 1])
    row = rows["completion"][0][0]
    assert (row.id, row.origin, row.split_key) == (
        f"completion/{path}:{FIRST[language]}", f"{path}:{FIRST[language]} {NAMES[language]}", path)


@pytest.mark.parametrize(("language", "text", "fault"), [
    ("java", "abstract class A { abstract int f(); }", "body_is_a_stub"),
    ("java", "class A {\n int f() {\n  throw new UnsupportedOperationException(\n   \"x\");\n }\n}", "body_is_a_stub"),
    ("java", "class A {\n A b(int x) {\n  this.x = x;\n  return this;\n }\n}", "accessor"),
    ("java", "class A {\n int f() {\n  return g(1);\n }\n}", "body_too_short"),
    ("java", "class A { int f() { g();\n h();\n k();\n l(); }\n}", "unusual_layout"),
    ("java", "class A {\n int f( {\n  g();\n  h();\n }\n}", "error_in_function"),
    ("javascript", "const f = x =>\n  g(x,\n    1)", "body_is_not_a_block"),
    ("javascript", "function f() {\n  g();\n  h();\n} k();", "unusual_layout"),
    ("go", "package p\nfunc f() {\n\tpanic(\"not implemented\")\n}", "body_is_a_stub"),
    ("go", "package p\nfunc (a *A) f() int {\n\treturn a.x\n}", "accessor"),
    ("rust", "fn f() {\n    todo!()\n}", "body_is_a_stub"),
    ("cpp", "class A { A() = default; };", "body_is_a_stub"),
    ("cpp", "class A {\n int x() const {\n  return x_;\n }\n};", "accessor"),
    ("c", "int f(void) {\n" + " g();\n" * 99 + "}", "too_many_lines"),
    ("c", "TEST_IMPL(boxes) {\n  f();\n  return 0;\n}", "macro_head"),
    ("cpp", "namespace n {\nTEST_F(Shelf, Counts) {\n  f();\n  g();\n}\n}", "macro_head"),
])
def test_what_teaches_nothing_is_counted_by_its_reason(language, text, fault):
    assert rows_of("completion", language, text)[1] == {fault: 1}


@pytest.mark.parametrize("text", [
    "class URI {\n  URI(int x) {\n    f(x);\n    g(x);\n  }\n};", "URI::URI(int x) {\n  f(x);\n  g(x);\n}",
    "int MAX(int a) {\n  f(a);\n  return g(a);\n}",
    "struct A {\n  operator int() const {\n    f();\n    return g(1);\n  }\n};"])
def test_a_name_in_capitals_is_no_macro_when_it_is_a_function_or_its_class(text):
    assert [function.fault for function in parse_code(text, "a.cc", "cpp").functions] == [None]


def test_a_function_of_a_hundred_lines_is_used():
    assert rows_of("completion", "c", "int f(void) {\n" + " g();\n" * 98 + "}")[1] == {}


def test_functions_without_an_error_are_used_beside_those_that_have_one():
    text = "int good(int a) {\n  a += 1;\n  a += 2;\n  a += 3;\n  return a;\n}\nint bad(int a) {\n  a += ;;) 1;\n  return a;\n}\n"
    parsed = parse_code(text, "a.c", "c")
    assert parsed.broken
    assert [(function.name, function.fault) for function in parsed.functions] == [("good", None), ("bad", "error_in_function")]


def test_functions_inside_others_are_counted_but_not_those_inside_a_callback():
    text = ("function f() {\n  function g() {\n    a();\n    b();\n  }\n  return g;\n}\n"
            "define(function () {\n  function h() {\n    a();\n    b();\n  }\n});\n")
    assert [(function.name, function.fault) for function in parse_code(text, "a.js", "javascript").functions] == [
        ("f", None), ("g", "nested_function"), ("h", None)]


def test_methods_of_a_class_that_the_grammar_takes_for_a_function_are_used():
    text = "namespace n {\nclass API Shelf {\n  int f(int a) {\n    a += 1;\n    return g(a);\n  }\n};\n}\n"
    assert [(function.name, function.fault) for function in parse_code(text, "a.h", "cpp").functions] == [("n::Shelf::f", None)]


@pytest.mark.parametrize(("language", "text", "names"), [
    ("javascript", "exports.f = function () {}\nvar x = { g: function () {}, h() {} }\nclass A { k = () => {}; static async *m() {} }",
     ["exports.f", "g", "h", "A.k", "A.m"]),
    ("cpp", "int A::f() {}\nA::~A() {}\nbool operator==(A a, B b) {}\nint (*g(int x))(int) {}\nauto& n::h() {}",
     ["A::f", "A::~A", "operator==", "g", "n::h"]),
    ("java", "class A { A() {} enum B { X { int g() {} } } record C(int x) { C {} } }", ["A.A", "A.B.g", "A.C.C"]),
    ("rust", "mod m { impl<T> D for S<T> { fn f() {} } trait Q { fn g() {} fn h(); } }", ["m::S::f", "m::Q::g"]),
    ("typescript", "abstract class A { abstract f(): void; private g = async () => {}; }\ndeclare function q(): void;\nconst h = () => {};",
     ["A.g", "h"]),
])
def test_qualified_names(language, text, names):
    assert [function.name for function in parse_code(text, "a", language).functions] == names


def test_markup_in_typescript_needs_the_name_of_the_file():
    text = "export function A(p: P) {\n  const x = <T,>(y: T) => y;\n  return <div>{p.a}</div>;\n}\n"
    assert not parse_code(text, "a.tsx", "typescript").broken
    assert parse_code(text, "a.ts", "typescript").broken


@pytest.mark.parametrize(("language", "comment", "text"), [
    ("java", "/** Twice x. */", "Twice x."),
    ("java", "/**\n     Twice x.\n       Indented.\n     */", "Twice x.\n  Indented."),
    ("java", "/* Twice x. */", None),
    ("java", "// Twice x.", None),
    ("javascript", "/**\n * Twice.\n *     code()\n * ```\n * f()\n * ```\n */", "Twice.\n    code()\n```\nf()\n```"),
    ("c", "/*********\n * Twice x.\n *********/", "Twice x."),
    ("c", "/* ---- *\n * Twice x. *\n * ---- */", "Twice x. *"),
    ("c", "/*! Twice x. */", "Twice x."),
    ("c", "/* Copyright (c) 2020 A */", None),
    ("c", "// TODO: name this better, please", None),
    ("c", "// f(x);\n// g(x);", None),
    ("c", "///< of what stands before", None),
    ("go", "// Twice doubles x.\n//nolint:all\n//go:noinline", "Twice doubles x."),
    ("rust", "/// Twice x.\n///\n/// ```\n/// f();\n/// ```", "Twice x.\n\n```\nf();\n```"),
    ("rust", "// Twice x.", None),
])
def test_the_text_of_a_doc_comment(language, comment, text):
    assert doc_text(comment.split("\n"), LANGUAGES[language]) == text


@pytest.mark.parametrize("between", ["\n", "int y; ", "#define X 1\n"])
def test_a_comment_that_does_not_stand_directly_above_documents_nothing(between):
    text = f"/** Counts the boxes of the shelf. */\n{between}int f(int x) {{\n  x += 1;\n  return g(x);\n}}\n"
    function = parse_code(text, "a.c", "c").functions[0]
    assert function.docstring is None
    assert function.lines[0] in (f"{between}int f(int x) {{", "int f(int x) {")


@pytest.mark.parametrize("before", ["int y;", "/* of y */ int y;"])
def test_a_comment_behind_other_code_documents_nothing(before):
    text = before + " // Counts the boxes of the shelf.\nint f(int x) {\n  x += 1;\n  return g(x);\n}\n"
    assert parse_code(text, "a.c", "c").functions[0].docstring is None


def test_attributes_above_a_doc_comment_belong_to_the_function():
    text = "#[a]\n/// Counts the boxes of the shelf.\n#[b]\nfn f(x: u8) -> u8 {\n    g(x);\n    h(x)\n}\n"
    function = parse_code(text, "a.rs", "rust").functions[0]
    assert function.lines[:4] == ("#[a]", "/// Counts the boxes of the shelf.", "#[b]", "fn f(x: u8) -> u8 {")
    assert function.undocumented[:3] == ("#[a]", "#[b]", "fn f(x: u8) -> u8 {")


HUMANEVAL = {"java": "java", "go": "go", "javascript": "js", "rust": "rust", "cpp": "cpp"}


@pytest.mark.parametrize("language", HUMANEVAL)
def test_on_public_problems_every_row_is_a_slice_of_the_source_and_every_function_is_counted(language, shared_data):
    used = 0
    with gzip.open(shared_data / "humaneval" / f"humanevalx_{HUMANEVAL[language]}.jsonl.gz", "rt", encoding="utf-8") as stream:
        for record in map(json.loads, stream):
            text = record.get("declaration", record["prompt"]) + record["canonical_solution"]
            functions = parse_code(text, "a", language).functions
            for make in ("completion", "text2code", "docstring"):
                ledger = Ledger("read")
                for row in harvest(functions, make, make, ledger):
                    question, answer = texts(row)
                    if make != "docstring":
                        assert answer in text
                        assert question.split("\n", 1)[1] in text
                    used += make == "completion"
                ledger.close()
                assert ledger.read == len(functions)
    assert used > 100
