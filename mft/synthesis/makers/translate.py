"""`translate_instruction`: instructions from English to Chinese or back."""

from collections.abc import Sequence

from mft.conversation import Message
from mft.synthesis.makers.config import TranslateStep
from mft.synthesis.makers.elimination import code_spans, first_of, leaked, refused
from mft.synthesis.makers.wording import TRANSLATE, filled
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def translate_instruction(rows: Sequence[Row], config: TranslateStep, tools: Tools) -> Tally:
    """Drops of translations: the faults of `Tools.ask`, `refused`, `prompt_leaked`, `code_changed` (code was not copied), `other_language`;
    of rows: `no_instruction`. Answers and tests go over to the translation."""
    tally = Tally(config.type, rows)
    asked = [row for row in rows if row.natural_language not in (config.to, "none")
             and tools.draw("translate", config.to, row.id) < config.share]
    chats = [([Message("user", filled(TRANSLATE[config.to], instruction=row.instruction))], 0) for row in asked]
    said = {row.id: text for row, text in zip(asked, tools.ask(config.type, config, chats), strict=True)}
    for row in rows:
        if row.id not in said:
            tally.keep(row, "not_translated") if row.instruction.strip() else tally.drop(row, "no_instruction")
            continue
        if config.keep_parents:
            tally.keep(row)
        else:
            tally.replaced += 1
        tally.made += 1
        child = row.child(f"to_{config.to}", row.lineage.round, said[row.id].text.strip(), keeps_answer=True)
        fault = said[row.id].fault or _fault(child, row, config)
        tally.drop(child, fault) if fault else tally.keep(child)
    return tally


def _fault(child: Row, parent: Row, config: TranslateStep) -> str:
    return first_of(refused(child.instruction), leaked(child.instruction, TRANSLATE[config.to]),
                    "" if code_spans(child.instruction) == code_spans(parent.instruction) else "code_changed",
                    "" if child.natural_language == config.to else "other_language")
