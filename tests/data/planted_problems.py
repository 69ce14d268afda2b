"""Problems of a benchmark planted into conversations, as they come with data sets: disguised by an editor, a chat window or a person."""

import ast
import html
import io
import re
import tokenize

from mft.conversation import Conversation, Message

BEFORE = "Hello! I am learning Python and have a question about my homework. Could you look at this for me, please?\n"
AFTER = "\nThank you very much, have a nice day. I hope that the weather stays fine."


def conversation(*texts):
    roles = ("user", "assistant") * 3
    return Conversation("planted", "chat", tuple(Message(roles[index], text) for index, text in enumerate(texts)))


def in_prose(text):
    return conversation(BEFORE + text + AFTER, "You are welcome.")


def reindented(text, unit):
    """Four spaces become `unit`."""
    out = []
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        depth, rest = divmod(len(line) - len(bare), 4)
        out.append(unit * depth + " " * rest + bare)
    return "\n".join(out)


def commented(text):
    """A comment line above each line of code, and one behind it; nothing inside docstrings."""
    out, inside = [], False
    for number, line in enumerate(text.split("\n")):
        quotes = line.count('"""') + line.count("'''")
        if inside or quotes or not line.strip() or line.endswith("\\"):
            out.append(line)
        else:
            indent = line[:len(line) - len(line.lstrip())]
            out += [f"{indent}# step {number} of the way", f"{line}  # note {number}"]
        inside ^= quotes % 2 == 1
    return "\n".join(out)


def renamed(program):
    """Every function, argument and variable of a program under another name; its strings, and so its docstrings, stay."""
    names = {}
    for node in ast.walk(ast.parse(program)):
        bound = node.name if isinstance(node, ast.FunctionDef) else node.arg if isinstance(node, ast.arg) else \
            node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
        if bound:
            names.setdefault(bound, f"renamed_{len(names)}")
    lines, tokens = program.split("\n"), list(tokenize.generate_tokens(io.StringIO(program).readline))
    for index, token in reversed(list(enumerate(tokens))):
        keyword = token.string in ("key", "reverse") and tokens[index + 1].string == "="
        if token.type == tokenize.NAME and token.string in names and tokens[index - 1].string != "." and not keyword:
            (row, start), (_, end) = token.start, token.end
            lines[row - 1] = lines[row - 1][:start] + names[token.string] + lines[row - 1][end:]
    return "\n".join(lines)


def without_docstrings(program):
    return re.sub(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', '"""Do it."""', program, flags=re.DOTALL)


def split_by_lines(text):
    lines = text.rstrip("\n").split("\n")
    half = max(1, len(lines) // 2)
    return conversation(BEFORE + "\n".join(lines[:half]), "\n".join(lines[half:]) + AFTER)


def split_with_prose_between(text):
    lines = text.rstrip("\n").split("\n")
    half = max(1, len(lines) // 2)
    return conversation(BEFORE + "\n".join(lines[:half]) + "\nPlease go on.", "Here it goes on:\n" + "\n".join(lines[half:]) + AFTER)


def split_inside_a_line(text):
    half = len(text.rstrip("\n")) // 2
    return conversation(BEFORE + text[:half], text[half:] + AFTER)


VARIANTS = {
    "verbatim": in_prose,
    "tabs": lambda text: in_prose(reindented(text, "\t")),
    "two spaces": lambda text: in_prose(reindented(text, "  ")),
    "commented": lambda text: in_prose(commented(text)),
    "upper-cased": lambda text: in_prose(text.upper()),
    "in a fence": lambda text: in_prose(f"```python\n{text}\n```"),
    "zero-width": lambda text: in_prose("\u200b".join(re.findall(r".{1,3}", text, re.DOTALL))),
    "quoted": lambda text: in_prose("\n".join(f"> {line}" for line in text.split("\n"))),
    "full-width signs": lambda text: in_prose(text.translate(str.maketrans("(),:[]", "（），：［］"))),
    "split by lines": split_by_lines,
    "split with prose between": split_with_prose_between,
    "split inside a line": split_inside_a_line,
}
"""How a text is planted; `renamed` needs the whole program and stands apart."""


UNDONE_IN_PART = {
    "line feeds written as \\n": lambda text: in_prose(text.replace("\n", "\\n")),
    "numbered lines": lambda text: in_prose("\n".join(f"{number:3d}  {line}" for number, line in enumerate(text.split("\n"), 1))),
    "HTML entities": lambda text: in_prose(html.escape(text)),
}
"""Disguises that are not undone: of these not all is found."""


def part_of(problem, part, program=None):
    """`program`, `prompt` or `solution` of a problem, or the same lines of another text of it."""
    text = program or problem.program
    if part == "program":
        return text
    lines = text.split("\n")
    first = problem.prompt.rstrip("\n").count("\n") + 1
    return "\n".join(lines[:first] if part == "prompt" else lines[first:])
