"""Text to SQL by execution: Spider's questions, on rows that are made up here.

Spider's databases are no part of its question files. So the tables of a question's schema are made in memory (sqlite) and filled, four
times over, with rows drawn by a seed: keys refer to rows that exist, numbers seldom repeat, and what the reference query compares with
(`country = 'France'`, `LIKE '%Hey%'`) stands in some rows. A query passes if it gives the reference's rows in all four: as a multiset, or
in order where the reference has an ORDER BY at its end. This is not Spider's official score, which runs on its own databases.

A question is left out, by name, where the reference cannot be run on the schema, or gives no row in any of the four. Files that name no
schema (WikiSQL's and Advising's queries) cannot be executed.
"""

import gzip
import json
import random
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mft.errors import DataError
from mft.problems.problem import Problem

INSTANCES: Final = 4
ROWS: Final = (6, 24)
TABLE_FILES: Final = ("*tables*.jsonl.gz", "*tables*.jsonl", "*tables*.json")
WORDS: Final = ("Abbey", "Bergen", "Cairo", "Delta", "Ember", "Fjord", "Gamma", "Harbor", "Iris", "Juno", "Kiel", "Lima", "Mesa", "Nova",
                "Oslo", "Porto", "Quito", "Roma", "Sierra", "Turin")

TESTS: Final = '''\
import sqlite3
_SCRIPTS = {scripts!r}
_QUERY = {query!r}
_ORDERED = {ordered!r}


def _plain(rows):
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def _expected(script):
    connection = sqlite3.connect(":memory:")
    connection.executescript(script)
    return _plain(connection.execute(_QUERY))


def check(candidate):
    for number, script in enumerate(_SCRIPTS, start=1):
        expected, found = _expected(script), _plain(candidate(script))
        if not _ORDERED:
            expected, found = sorted(expected, key=repr), sorted(found, key=repr)
        said = f"database {{number}}: {{len(found)}} rows, {{found[:3]!r}}; expected {{len(expected)}}, {{expected[:3]!r}}"
        assert found == expected, said
'''

SOLUTION: Final = '''\
import sqlite3


def rows(script):
    connection = sqlite3.connect(":memory:")
    connection.executescript(script)
    return [tuple(row) for row in connection.execute({query!r})]
'''


def read_spider(path: Path) -> tuple[list[Problem], dict[str, str]]:
    """The questions of a file, and those that are left out with the reason. The schemas are in a file beside it (`*tables*.json*`).

    Raises:
        DataError: a file is missing or damaged, a row has another layout, or no question can be executed.
    """
    schemas = {str(row["db_id"]): row for row in _rows(_tables_beside(path), ("db_id", "table_names_original", "column_names_original"))}
    problems, left_out = [], {}
    for number, row in enumerate(_rows(path, ("db_id", "question", "query"))):
        name = f"spider/{number}"
        schema = schemas.get(str(row["db_id"]))
        if schema is None:
            left_out[name] = f"no schema '{row['db_id']}'"
            continue
        query = str(row["query"])
        scripts = [database(schema, query, instance) for instance in range(INSTANCES)]
        if reason := _unusable(scripts, query):
            left_out[name] = reason
            continue
        prompt = f"{tables_of(schema)}\n-- Using valid SQLite, answer the question with one query.\n-- {row['question']}\n"
        ordered = re.search(r"\border\s+by\b[^()]*$", query, re.IGNORECASE) is not None
        problems.append(Problem(id=name, benchmark="spider", language="sql", style="instruction", prompt=prompt, solution=query,
                                entry_point="rows", tests=(TESTS.format(scripts=scripts, query=query, ordered=ordered),)))
    if not problems:
        raise DataError(f"{path}: no question can be executed: {next(iter(left_out.values()), 'the file is empty')}")
    return problems, left_out


def _unusable(scripts: Sequence[str], query: str) -> str | None:
    found = 0
    for script in scripts:
        connection = sqlite3.connect(":memory:")
        try:
            connection.executescript(script)
            found += len(connection.execute(query).fetchall())
        except sqlite3.Error as error:
            return f"the reference cannot be run: {error}"
        finally:
            connection.close()
    return None if found else "the reference gives no row in any of the databases"


def tables_of(schema: Mapping[str, Any]) -> str:
    """The schema as CREATE TABLE statements, keys included."""
    columns, types = schema["column_names_original"], schema["column_types"]
    keys = {key for entry in schema.get("primary_keys", []) for key in (entry if isinstance(entry, list) else [entry])}
    refers: dict[int, int] = dict(schema.get("foreign_keys", []))
    out = []
    for table, name in enumerate(schema["table_names_original"]):
        own = [index for index, (owner, _) in enumerate(columns) if owner == table]
        lines = [f'  "{columns[index][1]}" {_sql_type(types[index])}' for index in own]
        lines += [f'  PRIMARY KEY ({", ".join(_quoted(columns[index][1]) for index in own if index in keys)})'] if keys & set(own) else []
        lines += [f'  FOREIGN KEY ("{columns[index][1]}") REFERENCES "{schema["table_names_original"][columns[refers[index]][0]]}"'
                  f'("{columns[refers[index]][1]}")' for index in own if index in refers]
        out.append(f'CREATE TABLE "{name}" (\n' + ",\n".join(lines) + "\n);")
    return "\n".join(out)


def database(schema: Mapping[str, Any], query: str, instance: int) -> str:
    """A script that makes and fills the tables; the same for the same schema, query and number."""
    draw = random.Random(f"{schema['db_id']}/{query}/{instance}")
    columns, types = schema["column_names_original"], schema["column_types"]
    texts, numbers = _literals(query)
    refers: dict[int, int] = dict(schema.get("foreign_keys", []))
    keys = {key for entry in schema.get("primary_keys", []) for key in (entry if isinstance(entry, list) else [entry])}
    count = draw.randint(*ROWS)
    pools: dict[int, list[Any]] = {}

    def pool(index: int, seen: tuple[int, ...] = ()) -> list[Any]:
        if index in refers and index not in seen:
            return pool(refers[index], (*seen, index))
        if index not in pools:
            pools[index] = _values(draw, types[index], count, index in keys, texts, numbers)
        return pools[index]

    out = [re.sub(r",?\n  (?:PRIMARY|FOREIGN) KEY [^\n]*?(?=,?\n)", "", tables_of(schema))]
    for table, name in enumerate(schema["table_names_original"]):
        own = [index for index, (owner, _) in enumerate(columns) if owner == table]
        for row in range(count):
            values = [pool(index)[row % count] if index in keys and index not in refers else draw.choice(pool(index)) for index in own]
            out.append(f'INSERT INTO "{name}" VALUES ({", ".join(map(_literal, values))});')
    return "\n".join(out)


def _values(draw: random.Random, kind: str, count: int, is_key: bool, texts: Sequence[str], numbers: Sequence[float]) -> list[Any]:
    """Values of one column; a key's do not repeat."""
    if kind == "number":
        values: list[Any] = draw.sample(range(1, 10 * count + 90), count)
        wanted: Sequence[Any] = [near for number in numbers for near in (number, number + 1)]
    else:
        values = [f"K{index}" if is_key else f"{draw.choice(WORDS)} {draw.randint(1, 99)}" for index in range(count)]
        wanted = [*texts, *(str(number) for number in numbers)]
    places = draw.sample(range(count), min(count - 1, len(wanted) * 2))
    for place, value in zip(places, [*wanted, *wanted], strict=False):
        if not is_key or value not in values:
            values[place] = value
    return values


def _literals(query: str) -> tuple[list[str], list[float]]:
    """What a query compares with: texts (of a LIKE, one that it matches) and numbers."""
    texts = [single or double for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", query)]
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", query)
    numbers = [float(text) if "." in text else int(text) for text in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", bare)]
    return [text.replace("%", "x").replace("_", "y") if "%" in text else text for text in texts if text], numbers


def _sql_type(kind: str) -> str:
    return {"number": "NUMERIC", "boolean": "TEXT", "time": "TEXT", "others": "TEXT"}.get(kind, "TEXT")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def _tables_beside(path: Path) -> Path:
    found = sorted({each for pattern in TABLE_FILES for each in path.parent.glob(pattern)} - {path})
    if len(found) != 1:
        raise DataError(f"{path}: the schemas are looked for beside it, as {' or '.join(TABLE_FILES)}; there are {len(found)} such files")
    return found[0]


def _rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.split("\n") if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        missing = [key for key in keys if key not in row] if isinstance(row, dict) else ["object"]
        if missing:
            raise DataError(f"{path}:{number}: no {', '.join(missing)}; Spider's rows have {', '.join(keys)}")
    return rows
