"""`answer`: instruction -> solutions."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from mft.conversation import Message
from mft.synthesis.makers.config import AnswerStep, ProseLanguage
from mft.synthesis.makers.elimination import refused
from mft.synthesis.makers.wording import ANSWER, NAMES, filled
from mft.synthesis.row import Row, Solution, solution_of
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Said, Tools


def answer(rows: Sequence[Row], config: AnswerStep, tools: Tools) -> Tally:
    """Drops: `no_instruction`; `answer_without_code`, `refused` and the faults of `Tools.ask`, where no sample of a row has code (then by
    its first sample). Samples without code are counted as notes where others of the row have some."""
    tally = Tally(config.type, rows)
    asked = [row for row in rows if row.instruction.strip() and (config.replace or not row.solutions)]
    chats = [(_chat(row), sample) for row in asked for sample in range(config.samples)]
    said: dict[str, list[Said]] = defaultdict(list)
    for row, text in zip((row for row in asked for _ in range(config.samples)), tools.ask(config.type, config, chats), strict=True):
        said[row.id].append(text)
    for row in rows:
        if row.id not in said:
            tally.keep(row, "has_answer") if row.instruction.strip() else tally.drop(row, "no_instruction")
            continue
        read = [_read(each, row.language) for each in said[row.id]]
        solutions = tuple(each for each in read if isinstance(each, Solution))
        faults = [each for each in read if isinstance(each, str)]
        if not solutions:
            tally.drop(row, faults[0])
            continue
        tally.noted.update(f"sample_{fault}" for fault in faults)
        tally.keep(replace(row, solutions=solutions, tests="").measure(samples=config.samples))
    return tally


def _chat(row: Row) -> list[Message]:
    language: ProseLanguage = "zh" if row.natural_language == "zh" else "en"
    return [Message("system", filled(ANSWER[language], language=NAMES.get(row.language, row.language))), Message("user", row.instruction)]


def _read(said: Said, language: str) -> Solution | str:
    """The solution in an answer, or what is wrong with it."""
    if said.fault:
        return said.fault
    solution = solution_of(said.text, language)
    return solution if solution.code else refused(said.text) or "answer_without_code"
