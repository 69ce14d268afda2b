"""A prompt format that a user writes in YAML.

    name: house-style                                  extends: codellama70b
    bos: true                                          empty_system: false
    system: {before: "### System\\n", after: "\\n"}
    user: {before: "### User\\n", after: "\\n"}
    assistant: {before: "### Assistant\\n", end: "{eos}", then: "\\n"}
    tags: ["### User", "### Assistant"]
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel


class AroundSpec(StrictModel):
    """What stands before and after a content. `{bos}`, `{eos}` and the tokens of `control` are put in by id."""

    before: str = ""
    after: str = ""
    unless_ended: bool = False
    """Leave the text after out where the content ends in it."""


class AnswerSpec(StrictModel):
    """What stands around an answer."""

    before: str
    """The end of the prompt: what is sent when an answer is asked for. Not trained."""

    lead: str = ""
    """Text between prompt and answer that the model writes itself: trained (a space, after Llama 2's `[/INST]`)."""

    tail: str = ""
    """Text after the answer that the model writes itself before the end: trained."""

    end: str = "{eos}"
    """The control token that ends an answer: trained."""

    then: str = ""
    """Text after the end that stands before the next turn: not trained."""


class LayoutSpec(StrictModel):
    """A whole format."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """How the format is called in messages and reports."""

    bos: bool = False
    """Whether the text begins with the tokenizer's BOS. A `{bos}` in `user.before` puts one before each round."""

    system: AroundSpec = AroundSpec()
    system_place: Literal["turn", "first_user", "preamble", "none"] = "turn"
    """`turn`: a turn of its own; `first_user`: inside the first user's turn, before its content; `preamble`: in place of the
    preamble; `none`: a row with a system message is dropped as `no_system_slot`."""

    preamble: str = ""
    """Text at the start of every conversation."""

    preamble_with_input: str = ""
    """The preamble where the first instruction has an input."""

    input: str | None = None
    """What stands between an instruction and its input; null: they are joined by a newline."""

    user: AroundSpec
    assistant: AnswerSpec
    strip: bool = False
    """Take the space around contents away, answers' too."""

    control: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Control tokens in these strings, which the vocabulary must have."""

    tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Tags of ordinary text; a row whose messages contain one is dropped as `role_tag_in_text`."""

    stop_strings: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Text at which generation stops beside the end of an answer."""

    @model_validator(mode="after")
    def _ends(self) -> "LayoutSpec":
        if self.assistant.end not in ("{eos}", *self.control):
            raise ValueError(f"assistant.end is {self.assistant.end!r}; expected '{{eos}}' or one of control: an answer ends with one "
                             "token, put in by id")
        return self

    def values(self) -> dict[str, Any]:
        """The fields of `Layout`."""
        answer = self.assistant
        return {"user": self.user.model_dump(), "system": self.system.model_dump(), "system_place": self.system_place,
                "start": "{bos}" if self.bos else "", "preamble": self.preamble, "preamble_with_input": self.preamble_with_input,
                "input": self.input, "assistant": answer.before, "lead": answer.lead, "tail": answer.tail, "end": answer.end,
                "then": answer.then, "strip": self.strip, "control": self.control}


class CodeLlama70BSpec(StrictModel):
    """`codellama70b` with other settings."""

    extends: Literal["codellama70b"]
    empty_system: bool = True
    """Send an empty system turn where there is no system message, as Meta's code does; the card's template sends none."""

    destination_in_history: bool = False
    """Write earlier answers as they were asked for, so that one row trains them all. Serve it so too."""


class AlpacaSpec(StrictModel):
    """`alpaca` with other settings."""

    extends: Literal["alpaca"]
    newline: bool = False
    """End the prompt in `### Response:` and a newline."""
