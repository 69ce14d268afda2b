"""Spider's questions on rows that are made up: what is executed, what is left out, and that another query is told from the reference."""

import json
import sqlite3
from pathlib import Path

import pytest

from mft.errors import DataError
from mft.problems.spider import INSTANCES, database, read_spider, tables_of

SCHEMA = {"db_id": "shop", "table_names_original": ["item", "sale"],
          "column_names_original": [[-1, "*"], [0, "Id"], [0, "Name"], [0, "Price"], [1, "Sale Id"], [1, "Item"], [1, "Year"]],
          "column_types": ["text", "number", "text", "number", "number", "number", "number"], "primary_keys": [1, 4],
          "foreign_keys": [[5, 1]]}


def write(folder: Path, *queries: str, db: str = "shop") -> Path:
    (folder / "tables.json").write_text(json.dumps([SCHEMA]))
    path = folder / "dev.json"
    path.write_text(json.dumps([{"db_id": db, "question": f"Question {number}?", "query": query} for number, query in enumerate(queries)]))
    return path


def judged(problem, query: str) -> bool:
    """The tests of a problem against a query, here and now."""
    space: dict = {}
    exec(problem.tests[0], space)

    def rows(script: str) -> list[tuple]:
        connection = sqlite3.connect(":memory:")
        connection.executescript(script)
        return [tuple(row) for row in connection.execute(query)]

    try:
        space["check"](rows)
    except AssertionError:
        return False
    return True


def test_the_schema_is_shown_as_tables_with_their_keys():
    assert tables_of(SCHEMA) == (
        'CREATE TABLE "item" (\n  "Id" NUMERIC,\n  "Name" TEXT,\n  "Price" NUMERIC,\n  PRIMARY KEY ("Id")\n);\n'
        'CREATE TABLE "sale" (\n  "Sale Id" NUMERIC,\n  "Item" NUMERIC,\n  "Year" NUMERIC,\n  PRIMARY KEY ("Sale Id"),\n'
        '  FOREIGN KEY ("Item") REFERENCES "item"("Id")\n);')


def test_what_a_query_compares_with_stands_in_the_rows_and_keys_refer_to_rows():
    for number in range(INSTANCES):
        connection = sqlite3.connect(":memory:")
        connection.executescript(database(SCHEMA, "SELECT Name FROM item WHERE Name LIKE '%lamp%' AND Price > 300", number))
        assert connection.execute("SELECT count(*) FROM item WHERE Name LIKE '%lamp%'").fetchone()[0] > 0
        assert connection.execute("SELECT count(*) FROM sale WHERE Item NOT IN (SELECT Id FROM item)").fetchone()[0] == 0
        assert connection.execute("SELECT count(*) - count(DISTINCT Id) FROM item").fetchone()[0] == 0
    assert database(SCHEMA, "q", 0) == database(SCHEMA, "q", 0) != database(SCHEMA, "q", 1)


@pytest.mark.parametrize(("reference", "same", "other"), [
    ("SELECT count(*) FROM item", "SELECT count(Id) FROM item", "SELECT count(*) FROM sale WHERE Year > 20"),
    ("SELECT Name FROM item WHERE Name = 'lamp'", 'SELECT Name FROM item WHERE Name LIKE "lamp"', "SELECT Name FROM item"),
    ("SELECT Name, Price FROM item", "SELECT Name, Price FROM item ORDER BY Price", "SELECT Price, Name FROM item"),
    ("SELECT Name FROM item ORDER BY Price", "SELECT Name FROM item ORDER BY Price ASC", "SELECT Name FROM item ORDER BY Price DESC"),
    ("SELECT T1.Name FROM item AS T1 JOIN sale AS T2 ON T1.Id = T2.Item", "SELECT Name FROM sale JOIN item ON Item = Id",
     "SELECT DISTINCT T1.Name FROM item AS T1 JOIN sale AS T2 ON T1.Id = T2.Item"),
])
def test_rows_decide_and_their_order_only_where_the_reference_has_one(tmp_path: Path, reference: str, same: str, other: str):
    (problem,), left_out = read_spider(write(tmp_path, reference))
    assert left_out == {}
    assert (judged(problem, reference), judged(problem, same), judged(problem, other)) == (True, True, False)


def test_what_cannot_be_judged_is_left_out_by_name(tmp_path: Path):
    queries = ("SELECT Name FROM item", "SELECT Colour FROM item", "SELECT Name FROM item WHERE 1 = 2")
    problems, left_out = read_spider(write(tmp_path, *queries))
    assert [problem.id for problem in problems] == ["spider/0"]
    assert left_out == {"spider/1": "the reference cannot be run: no such column: Colour",
                        "spider/2": "the reference gives no row in any of the databases"}
    with pytest.raises(DataError, match="no question can be executed: no schema 'other'"):
        read_spider(write(tmp_path, "SELECT 1", db="other"))


def test_files_that_are_missing_or_of_another_layout_are_named(tmp_path: Path):
    path = write(tmp_path, "SELECT Name FROM item")
    path.write_text('[{"db_id": "shop", "question": "q"}]')
    with pytest.raises(DataError, match=r"dev.json:1: no query; Spider's rows have db_id, question, query"):
        read_spider(path)
    (tmp_path / "tables.json").unlink()
    with pytest.raises(DataError, match="the schemas are looked for beside it"):
        read_spider(path)


def test_most_of_spiders_questions_can_be_executed(shared_data: Path):
    problems, left_out = read_spider(shared_data / "tasks" / "spider_dev_0_699.jsonl.gz")
    assert (len(problems), len(left_out)) == (671, 29)
