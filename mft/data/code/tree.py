"""All functions of a tree in several languages, and the files that give none."""

from collections.abc import Iterator
from pathlib import Path

from mft.data.code.files import SourceTree
from mft.data.code.functions import CodeFunction, LeftOutFile
from mft.data.code.languages import CodeLanguage
from mft.data.code.parse import parse_code
from mft.data.python_functions import Function, UnreadableFile, read_file


def read_code_tree(tree: SourceTree) -> Iterator[Function | CodeFunction | UnreadableFile | LeftOutFile]:
    """Left-out files first, then the functions of every file in the order of path and line. Newlines are read as `\\n`."""
    yield from tree.left_out
    for source in tree.files:
        if source.language == "python":
            yield from read_file(source.path, source.file)
        else:
            yield from _read(source.path, source.file, source.language)


def _read(relative: str, path: Path, language: CodeLanguage) -> Iterator[CodeFunction | UnreadableFile]:
    """A file with errors gives the functions that have none; one that has nothing but errors is counted as one row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield UnreadableFile(relative, "not_text", str(error))
        return
    if "\0" in text:
        yield UnreadableFile(relative, "not_text", "holds a NUL character")
        return
    parsed = parse_code(text.replace("\r\n", "\n").replace("\r", "\n"), relative, language)
    if parsed.broken and not parsed.functions:
        yield UnreadableFile(relative, "does_not_parse", f"syntax errors and no function, read as {language}")
    yield from parsed.functions
