"""`backtranslate`: code -> the instruction that it answers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from mft.conversation import Message
from mft.data.filters.config import CodeLanguage
from mft.data.filters.grammars import parses
from mft.synthesis.code import LANGUAGES
from mft.synthesis.makers.config import BacktranslateStep, ProseLanguage
from mft.synthesis.makers.elimination import code_in_text, first_of, leaked, refused, unfenced
from mft.synthesis.makers.wording import BACKTRANSLATE, NAMES, filled
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def backtranslate(rows: Sequence[Row], config: BacktranslateStep, tools: Tools) -> Tally:
    """Drops: `no_code`, `code_does_not_parse`, the faults of `Tools.ask`, `refused`, `prompt_leaked`, `too_short`,
    `code_in_instruction`, `other_language`."""
    tally = Tally(config.type, rows)
    asked = [row for row in rows if not row.instruction and _usable(row)]
    chats = [([Message("user", filled(BACKTRANSLATE[_language(row, config, tools)], language=NAMES[row.language], code=row.code))], 0)
             for row in asked]
    said = {row.id: answer for row, answer in zip(asked, tools.ask(config.type, config, chats), strict=True)}
    for row in rows:
        if row.instruction:
            tally.keep(row, "has_instruction")
        elif row.id not in said:
            tally.drop(row, "code_does_not_parse" if row.code else "no_code")
        else:
            answer, language = said[row.id], _language(row, config, tools)
            text = unfenced(answer.text)
            made = replace(row, instruction=text, lineage=replace(row.lineage, operation=row.lineage.operation or config.type))
            fault = answer.fault or _fault(made, language, config)
            tally.drop(row, fault) if fault else tally.keep(made)
    return tally


def _usable(row: Row) -> bool:
    return bool(row.code) and (row.language not in LANGUAGES or parses(row.code, cast(CodeLanguage, row.language)))


def _language(row: Row, config: BacktranslateStep, tools: Tools) -> ProseLanguage:
    if config.language != "mixed":
        return config.language
    return "zh" if tools.draw("zh", row.id) < config.zh_share else "en"


def _fault(made: Row, language: ProseLanguage, config: BacktranslateStep) -> str:
    return first_of(refused(made.instruction), leaked(made.instruction, BACKTRANSLATE[language]),
                    "too_short" if len(made.instruction) < config.min_characters else "",
                    code_in_text(made.instruction, made.code, config.most_lines_shared),
                    "" if made.natural_language == language else "other_language")
