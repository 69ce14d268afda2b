"""`syntax`: fences are closed and what stands in them parses; fragments pass, unknown languages are not judged."""

import pytest
from filter_rows import reason, row, step, verdicts
from pydantic import ValidationError

from mft.conversation import Conversation, Message
from mft.data.filters.fences import find_fences, outside_fences
from mft.data.filters.grammars import TAGS, parses


@pytest.mark.parametrize(("text", "found"), [
    ("no fence", []),
    ("```py\nx\n```", [("py", "x\n", True)]),
    ("a\n~~~ C++ title=x\nx\n~~~\n", [("c++", "x\n", True)]),
    ("````md\n```\nx\n```\n````", [("md", "```\nx\n```\n", True)]),
    ("```\n~~~\n```", [("", "~~~\n", True)]),
    ("1. do\n\n   ```js\n   if (x) {\n     y\n   }\n   ```\n", [("js", "if (x) {\n  y\n}\n", True)]),
    ("> ```sh\n> ls\n> ```", [("sh", "ls\n", True)]),
    ("```py\r\nx\r\n```\r\n", [("py", "x\r\n", True)]),
    ("```py\rx\r```", [("py", "x\r", True)]),
    ("so: ```x``` and\n```y``` too", []),
    ("```{.python .numberLines}\nx\n```", [("python", "x\n", True)]),
    ("```py\nx", [("py", "x", False)]),
    ("```py\nprint(1) ```", [("py", "print(1) ```", False)]),
    ("```\n``` py\n", [("", "``` py\n", False)]),
    ("```", [("", "", False)]),
    ("```a\n```\n```b\n```", [("a", "", True), ("b", "", True)]),
])
def test_fences_are_those_of_commonmark(text, found):
    assert [(fence.tag, fence.code, fence.closed) for fence in find_fences(text)] == found
    assert outside_fences(text, lambda part: part) == text


SOUND = {
    "python": ["x = 1", "    def f(self):\n        return 1\n", "await x", "return 1", "...",
               ">>> f(1)\n2\n>>> for x in y:\n...     pass\n",
               "!pip install x\n%matplotlib inline\nimport x",
               "print('\\d')", "match x:\n    case 1: pass"],
    "java": ["public int f(int a) { return a; }", "int x = 1;\nSystem.out.println(x);", "private int x;\nFoo() {}", "x + 1",
             "import java.util.*;\npublic Foo() {}", "int x = 1", "// only a comment", "import a.B;\n...\nint x = 1;"],
    "javascript": ["return 1;", "{a: 1, b: 2}", "a: function() {},\nb: 1", "constructor() {}\nasync f() {}", "<div>{x}</div>",
                   "for await (a of b) {}"],
    "typescript": ["interface A { b: string }", "f(x: string): void { }", "const a = <div>hi</div>;", "let x = <string>y;"],
    "go": ["x := 1\nfmt.Println(x)", "func f() int { return 1 }", "package main\nfunc main() {}",
           'import "fmt"\n\nfor i := 0; i < 3; i++ { fmt.Println(i) }', "map[string]int{\"a\": 1}"],
    "c": ["int x = 1;", "#include <stdio.h>\nfor (;;) {}", "return 0", "struct a { int b; };", "int f(int);"],
    "cpp": ["std::cout << 1;", "public:\n  A() : x(1) {}\n  int x;", "template <class T> T f(T x) { return x; }",
            "auto f = [](int x) { return x; };"],
    "rust": ["fn main() { let x = 1; }", "let x = 1;", "pub fn f(&self) -> i32 { 1 }", "use a::b;\nlet c = b();"],
    "csharp": ["public int F() { return 1; }", "int x = 1;", "public Foo() { }\npublic int X { get; set; }",
               "using System;\npublic int X { get; set; }", "x => x + 1"],
    "bash": ["ls -l | grep x", "if [ -f x ]; then echo; fi", "git clone <url>", "cat <<EOF\nhi\nEOF"],
}
BROKEN = {
    "python": ["x = ", "print 'hello'", "  x = 1\ny = 2", ">>>x", "import a b = 1", "x = 1\0"],
    "java": ["public class A { ", "int x = ;", "System.out.println(1) System.out.println(2)", "def f(): pass"],
    "javascript": ["const x = ;", "function f( {", "foreach(var a in b){}", "let x = 1 let y = 2"],
    "typescript": ["interface A { b string c }", "const x: = 1"],
    "go": ["x := ", "func f() { a := 1 b := 2 }", "int x = 1;"],
    "c": ["int f( { }", "int x = = 1;", "} int x;"],
    "cpp": ["std::cout << ;", "int main() { return 0;", "class A { int x }"],
    "rust": ["fn main() {", "let x = ;", "def f(): pass"],
    "csharp": ["int x = ;", "public class A {", "public void F() throws E { }"],
    "bash": ["if then", "echo 'unclosed", "for i in; done"],
}


@pytest.mark.parametrize(("language", "code"), [(language, code) for language, codes in SOUND.items() for code in codes])
def test_whole_programs_and_fragments_parse(language, code):
    assert parses(code, language)


@pytest.mark.parametrize(("language", "code"), [(language, code) for language, codes in BROKEN.items() for code in codes])
def test_broken_code_does_not_parse(language, code):
    assert not parses(code, language)


def test_every_language_has_a_tag_and_examples():
    assert set(TAGS.values()) == SOUND.keys() == BROKEN.keys()


@pytest.mark.parametrize("tag", ["python", "Python", "py", "python3", "PYTHON {cmd=true}"])
def test_tags_are_aliases_in_any_case(tag):
    assert reason(f"see\n```{tag}\nx = \n```", type="syntax") == "syntax_error"
    assert reason(f"see\n```{tag}\nx = 1\n```", type="syntax") == ""


def test_every_fence_is_judged_and_an_open_one_is_named_first():
    assert reason("```py\nx = 1\n```\n```js\nlet = ;\n```", type="syntax") == "syntax_error"
    assert reason("```py\nx = \n```\n```js\nlet x", type="syntax") == "unclosed_fence"


def test_unknown_and_missing_tags_are_counted_but_not_judged():
    made = step(type="syntax")
    found = verdicts(made, [row("q", "```sql\nSELEC\n```\n```\nx = \n```\n```console\n$ (\n```\n```py\nx\n```")])
    assert found[0].keep
    assert made.report() == {"judged": {"python": 1}, "not_judged": {"": 1, "console": 1, "sql": 1}}


def test_questions_and_untrained_answers_are_not_judged():
    broken = "```py\nx = \n```"
    messages = (Message("user", broken), Message("assistant", broken, train=False), Message("user", "why?"), Message("assistant", "so"))
    assert verdicts(step(type="syntax", answers=None), [Conversation("1", "t", messages)])[0].keep


def test_whole_answers_are_judged_only_where_the_recipe_says_so():
    assert reason("x = ", type="syntax") == ""
    assert reason("x = ", type="syntax", answers="python") == "syntax_error"
    assert reason("x = 1", type="syntax", answers="python") == ""
    assert reason("Here:\n```py\nx = 1\n```", type="syntax", answers="python") == ""
    assert reason("int x = 1;", type="syntax", answers="java") == ""


@pytest.mark.parametrize(("user", "answer", "sound"), [
    ("Complete this.\ndef f(x):\n    if x:", "        return 1\n    return 2", True),
    ("Complete this.\n    def f(self):\n        if self:", "            return 1", True),
    ("def f(x):\n    return ", "x + 1", True),
    ("Complete:\n```python\ndef f(x):\n```\nbriefly", "    return x", True),
    ("Complete this.\ndef f(x):", "  x = 1\n y = 2", False),
    ("Complete this.\ndef f(x):\n    return (", "        x", False),
])
def test_a_completion_is_joined_to_its_prefix(user, answer, sound):
    assert reason(answer, user, type="syntax", answers="python", joined=True) == ("" if sound else "syntax_error")


def test_an_input_is_a_prefix_too():
    messages = (Message("user", "go on\nat length\ndef f():", input_start=16), Message("assistant", "    return 1"))
    assert verdicts(step(type="syntax", answers="python", joined=True), [Conversation("1", "t", messages)])[0].keep


def test_joined_without_a_language_is_refused():
    with pytest.raises(ValidationError, match="joined: true needs `answers`"):
        step(type="syntax", joined=True)


@pytest.mark.parametrize("code", ["-" * 200_000 + "1", "a" + ".b" * 50_000, "(" * 100_000, "[" * 100_000 + "]" * 100_000,
                                  "\n" * 200_000 + "%x =", "x" * 200_000, "<a" * 10_000, "import x " * 10_000])
@pytest.mark.parametrize("language", ["python", "go", "bash"])
def test_code_made_to_hurt_is_judged_all_the_same(code, language):
    assert parses(code, language) in (True, False)


def test_half_of_a_surrogate_pair_is_no_crash():
    assert parses("x = '\ud83d'", "java") in (True, False)
    assert not parses("x = '\ud83d'", "python")
