"""Whether the contestants of the encoding benchmark did the same work: ids and labels row by row, every difference explained.

A difference is explained only by a ladder of scripts/id_causes.py that ends in the peer's row, to the id and the label.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import id_causes
import numpy as np
from id_causes import Ladder, Setting, State
from peer_rows import IGNORED, IdRow
from peers_encoding import MftCoder, MftCoderRaw, Ours, OursCached, Tally, Trl, Tutorial
from peers_inputs import Inputs

from mft.conversation import Conversation, Message
from mft.tokenization.store import EncodedSet


@dataclass(slots=True)
class Agreement:
    """How many rows of a contestant have mft's ids and labels, and why the others have not; what all of its rows hold.

    Every row is compared; `proven` of those that differ were led to the peer's row, and `causes` are theirs.
    """

    name: str
    rows: int = 0
    equal: int = 0
    proven: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    tokens: int = 0
    trained: int = 0

    @property
    def sound(self) -> bool:
        """Whether every difference was explained."""
        return self.rows > 0 and id_causes.UNEXPLAINED not in self.causes

    def add(self, theirs: State) -> None:
        """Count one row."""
        self.rows += 1
        self.samples += len(theirs)
        self.tokens += sum(len(row.input_ids) for row in theirs)
        self.trained += sum(len(row.labels) - row.labels.count(IGNORED) for row in theirs)

    def fits(self, tally: Tally) -> bool:
        """Whether a timed run came out with just these rows, none lost or cut on the way into packed rows."""
        return (tally.samples, tally.tokens, tally.trained) == (self.samples, self.tokens, self.trained)


def agreements(inputs: Inputs, made: Mapping[str, Any], prove: int | None = None) -> list[Agreement]:
    """Compare what one run of each contestant made (by its name) with what mft made without its word cache.

    `prove`: differing rows of a contestant, evenly spread, for which the cause is looked for; None: all of them.
    """
    ours: EncodedSet = made[Ours.name][0]
    setting, context = inputs.setting, inputs.context
    head = setting.prompt_format.name == "mftcoder"
    peers: dict[str, tuple[Iterable[State], Callable[[Conversation], Ladder]]] = {
        Ours.name: (Ours.rows(ours), lambda row: iter(())),
        Tutorial.name: (((row,) for row in Tutorial.rows(made[Tutorial.name][0])), lambda row: tutorial_ladder(setting, row)),
        Trl.name: ((() if row is None else (row,) for row in Trl(inputs).rows()),
                   lambda row: id_causes.completion_ladder(setting, row, inputs.released, context)),
    }
    for coder in (MftCoder, MftCoderRaw):
        peers[coder.name] = (((row,) for row in made[coder.name][0]), lambda row: id_causes.mftcoder_ladder(setting, row, head=head))
    found = [_compared(name, inputs, ours, rows, ladder, prove) for name, (rows, ladder) in peers.items()]
    cached = replace(found[0], name=OursCached.name, causes=Counter())
    if not same_store(ours, made[OursCached.name][0]):
        cached.equal, cached.causes = 0, Counter({id_causes.UNEXPLAINED: 1})
    return [found[0], cached, *found[1:]]


def same_store(one: EncodedSet, other: EncodedSet) -> bool:
    """Whether two stores hold the same ids, trained spans, names and order, byte for byte."""
    pairs = ((getattr(one.samples, name), getattr(other.samples, name)) for name in ("ids", "spans", "names", "records"))
    return all(np.array_equal(first, second) for first, second in pairs)


def _compared(name: str, inputs: Inputs, ours: EncodedSet, rows: Iterable[State], ladder: Callable[[Conversation], Ladder],
              prove: int | None) -> Agreement:
    agreement = Agreement(name)
    different: list[tuple[Conversation, State, State]] = []
    for conversation, own, theirs in zip(inputs.conversations, Ours.rows(ours), rows, strict=True):
        agreement.add(theirs)
        if own == theirs:
            agreement.equal += 1
        else:
            different.append((conversation, own, theirs))
    count = len(different) if prove is None else min(prove, len(different))
    for number in range(count):
        conversation, own, theirs = different[number * len(different) // count]
        agreement.causes.update(id_causes.causes(own, theirs, ladder(conversation)))
    agreement.proven = count
    return agreement


def tutorial_ladder(setting: Setting, conversation: Conversation) -> Ladder:
    """To the tutorial's rows: the whole as one string, untrained for as many tokens as the prompt alone has."""
    *earlier, answer = conversation.messages
    last = replace(conversation, messages=(*(replace(message, train=False, untrained=()) for message in earlier),
                                           Message(answer.role, answer.content)))
    yield id_causes.LAST_ONLY, setting.ours(last)
    prompt, whole = setting.prompt_format.render_prompt(earlier), setting.prompt_format.render(last)
    row = _after(len(setting.plain(prompt)), setting.plain(whole))
    end = setting.tokenizer.control_id(setting.prompt_format.end_token)
    kept = len(row.labels) - row.labels[::-1].index(end)
    yield id_causes.BOUNDARY, (IdRow(row.input_ids, row.labels[:kept] + (IGNORED,) * (len(row.labels) - kept)),)
    yield id_causes.AFTER_END, (row,)
    yield id_causes.CONTROL, (_after(len(setting.parsed(prompt)), setting.parsed(whole)),)


def _after(before: int, ids: list[int]) -> IdRow:
    return IdRow(tuple(ids), (IGNORED,) * before + tuple(ids[before:]))
