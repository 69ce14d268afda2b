"""`evolve`: instructions -> harder instructions, over some rounds, each with its lineage."""

from collections.abc import Sequence

from mft.conversation import Message
from mft.synthesis.makers.config import EvolveStep, Operation, ProseLanguage
from mft.synthesis.makers.elimination import copied, first_of, leaked, refused, unfenced
from mft.synthesis.makers.wording import EVOLVE, HOW, NAMES, filled
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def evolve(rows: Sequence[Row], config: EvolveStep, tools: Tools) -> Tally:
    """Drops of evolutions: the faults of `Tools.ask`, `refused`, `prompt_leaked`, `unchanged`, `copied`, `too_short`, `other_language`;
    of rows: `no_instruction`.

    A round evolves what the round before it made; where that was eliminated, its parent is tried again, by another draw. Every
    evolution that survives is a row of its own, so two rounds of one seed give up to two rows.
    """
    tally = Tally(config.type, rows)
    usable = [row for row in rows if row.instruction.strip()]
    pool, made = list(usable), {row.id: [row] for row in usable}
    for number in range(1, config.rounds + 1):
        pool = _round(pool, made, number, config, tools, tally)
    for row in rows:
        if row.id not in made:
            tally.drop(row, "no_instruction")
            continue
        family = made[row.id]
        if config.keep_parents:
            tally.keep(row)
        else:
            tally.replaced += 1
        for child in family[1:]:
            tally.keep(child)
    return tally


def _round(pool: Sequence[Row], made: dict[str, list[Row]], number: int, config: EvolveStep, tools: Tools, tally: Tally) -> list[Row]:
    """One evolution of each row of the pool; the pool of the next round."""
    plans = [(operation_of(row, number, config, tools), _language(row, config)) for row in pool]
    chats = [([Message("user", filled(EVOLVE[language], how=HOW[language][operation], language=NAMES.get(row.language, row.language),
                                      instruction=row.instruction))], 0)
             for row, (operation, language) in zip(pool, plans, strict=True)]
    after = []
    roots = {member.id: root for root, family in made.items() for member in family}
    for parent, (operation, language), said in zip(pool, plans, tools.ask(config.type, config, chats), strict=True):
        child = parent.child(operation, number, unfenced(said.text))
        tally.made += 1
        fault = said.fault or _fault(child, parent, language, operation, config)
        if fault:
            tally.drop(child, fault)
            after.append(parent)
        else:
            made[roots[parent.id]].append(child)
            after.append(child)
    return after


def operation_of(row: Row, number: int, config: EvolveStep, tools: Tools) -> Operation:
    """The operation of a row in a round: by a hash, so that it does not depend on the other rows."""
    return config.operations[int(tools.draw("operation", row.id, number) * len(config.operations))]


def _language(row: Row, config: EvolveStep) -> ProseLanguage:
    if config.language != "same":
        return config.language
    return "zh" if row.natural_language == "zh" else "en"


def _fault(child: Row, parent: Row, language: ProseLanguage, operation: Operation, config: EvolveStep) -> str:
    template = EVOLVE[language] + HOW[language][operation]
    change = copied(child.instruction, parent.instruction, config.min_new_words)
    return first_of(refused(child.instruction), leaked(child.instruction, template), change if change == "unchanged" else "",
                    "too_short" if len(child.instruction) < config.min_characters else "", change,
                    "" if child.natural_language == language else "other_language")
