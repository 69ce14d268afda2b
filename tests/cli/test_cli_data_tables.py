"""What a person reads of the counts of a data set."""

from mft.cli.data_tables import stats_parts
from mft.cli.outcome import Outcome, Table

FACTS = {
    "unit": "characters", "samples": 3, "trained_characters": 6, "characters": 12, "read": 3, "kept": 3, "dropped": {},
    "per_task": {"chat": {"samples": 3, "characters": 12, "trained_characters": 6,
                          "lengths": {"mean": 4.0, "p50": 4, "p90": 4, "p99": 4, "max": 4}}},
    "steps": [{"step": "read", "task": "chat", "read": 1500, "kept": 3, "dropped": {"no_answer": 1497},
               "sources": [{"source": "jsonl a.jsonl", "read": 1000, "kept": 1, "dropped": {"no_answer": 999}},
                           {"source": "csv b.csv", "read": 500, "kept": 2, "dropped": {"no_answer": 498}}]},
              {"step": "read", "task": "sql", "read": 2, "kept": 2, "dropped": {},
               "sources": [{"source": "jsonl c.jsonl", "read": 2, "kept": 2, "dropped": {}}]},
              {"step": "length", "read": 5, "kept": 5, "dropped": {}}],
}


def test_the_sources_of_a_task_stand_below_its_read_step_where_there_are_several():
    steps = next(part for part in stats_parts(FACTS) if isinstance(part, Table) and part.title == "steps")
    assert steps.rows == [
        ["read chat", "1,500", "3", "1497 no_answer"], ["  jsonl a.jsonl", "1,000", "1", "999 no_answer"],
        ["  csv b.csv", "500", "2", "498 no_answer"], ["read sql", "2", "2", "nothing"], ["length", "5", "5", "nothing"]]


def test_square_brackets_of_a_name_are_text(capsys):
    Outcome({}, [Table("[b]counts[/b]", ["task[/i]"], [["sql[/b]"], ["[fg]*.gz"]])]).show()
    shown = capsys.readouterr().out
    assert "[b]counts[/b]" in shown
    assert "task[/i]" in shown
    assert "sql[/b]" in shown
    assert "[fg]*.gz" in shown
