"""The steps of `filters/` as a recipe writes them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel
from mft.conversation import Role
from mft.data.filters.parts import Part
from mft.data.filters.rewrites import Rewrite

CodeLanguage = Literal["python", "java", "javascript", "typescript", "go", "c", "cpp", "rust", "csharp", "bash"]


class LengthStep(StrictModel):
    """Drop rows by the characters of their user and assistant messages together; system messages are not counted."""

    type: Literal["length"]

    min_characters: int = Field(0, ge=0)
    """A row with fewer is dropped as `too_short`."""

    max_characters: int | None = Field(None, gt=0)
    """A row with more is dropped as `too_long`; null: no limit."""

    @model_validator(mode="after")
    def _in_order(self) -> "LengthStep":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters is {self.max_characters}, below min_characters ({self.min_characters}); no row would be left")
        return self


class NormaliseStep(StrictModel):
    """Rewrite text in the named ways; nothing else is changed, and nothing is ever stripped from the start of an answer."""

    type: Literal["normalise"]

    apply: list[Rewrite] = Field(min_length=1)
    """Rewrites, in this order.

    `newlines`: CR LF and CR -> LF. `nul`: U+0000 goes. `nbsp`: U+00A0 and U+202F -> space (they break indentation). `zero_width`:
    U+200B, U+2060 and U+FEFF go. `bidi`: direction overrides go. `nfc`: Unicode NFC. `full_width`: the 28 characters that
    MFTCoder of 2023 replaced, from `，` to `０`. `trailing_space`: spaces and tabs before a line's end.

    Program text is text too: `full_width` changes the meaning of a Chinese string literal, `trailing_space` that of Markdown.
    """

    roles: tuple[Role, ...] = ("system", "user", "assistant")
    """Messages of these roles are rewritten."""

    fenced_code: bool = True
    """Rewrite inside ``` fences too; false leaves them as they are. Code without a fence cannot be told from prose."""

    @model_validator(mode="after")
    def _once(self) -> "NormaliseStep":
        twice = sorted({name for name in self.apply if self.apply.count(name) > 1})
        if twice:
            raise ValueError(f"apply names {', '.join(twice)} more than once")
        return self


class LanguageStep(StrictModel):
    """Keep rows whose prose is Chinese, English, neither, or none; judged by script, after code is taken out."""

    type: Literal["language"]

    keep: list[Literal["zh", "en", "other", "none"]] = Field(min_length=1)
    """`zh` Chinese; `en` text in Latin letters; `other` any other script; `none` no letter outside code. Others go."""

    on: Part = "user"
    """What is judged. Answers of code sets are often bare code, whose letters are Latin in every language: hence `user`."""

    han_share: float = Field(0.1, gt=0, le=1)
    """Share of Han among Han and Latin letters from which a text is Chinese. One Han letter says about as much as four Latin ones."""


class SyntaxStep(StrictModel):
    """Drop rows whose answers hold code that does not parse: what stands in ``` fences of a known language, or whole answers."""

    type: Literal["syntax"]

    answers: CodeLanguage | None = None
    """An answer without a fence is code of this language, whole; null: it is not judged."""

    joined: bool = False
    """An answer goes on where the user's code ends (completion, function bodies): the two are joined before they are judged."""

    @model_validator(mode="after")
    def _joined_needs_a_language(self) -> "SyntaxStep":
        if self.joined and self.answers is None:
            raise ValueError("joined: true needs `answers`, the language of the answers")
        return self


Share = Annotated[float, Field(ge=0, le=1)]


class RepetitionStep(StrictModel):
    """Drop rows whose answers repeat themselves: the limits of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), set for code.

    Gopher's own are made for web pages: 0.30 of lines and of paragraphs, 0.20 of their characters, 0.20 / 0.18 / 0.16 for the top
    runs of 2 / 3 / 4 words, 0.15 / 0.14 / 0.13 / 0.12 / 0.11 / 0.10 for duplicate runs of 5 to 10.
    """

    type: Literal["repetition"]

    on: Part = "answer"
    """Each message of this part is judged by itself."""

    min_words: int = Field(50, ge=1)
    """A text with fewer words (Chinese: characters) is not judged: in a short one every share is large."""

    duplicate_lines: Share = 0.6
    """Lines that came before, of all lines with a letter or digit."""

    duplicate_line_characters: Share = 0.6
    """The same by characters."""

    duplicate_paragraphs: Share = 0.5
    """Paragraphs (parts between blank lines) that came before, of all."""

    duplicate_paragraph_characters: Share = 0.5
    """The same by characters."""

    top_ngrams: dict[Annotated[int, Field(ge=1, le=32)], Share] = Field({2: 0.6, 3: 0.6, 4: 0.6})
    """Words of a run: characters inside the run that stands most often, of all."""

    duplicate_ngrams: dict[Annotated[int, Field(ge=1, le=32)], Share] = Field({5: 0.8, 10: 0.7})
    """Words of a run: characters inside runs that came before, of all."""


class SampleStep(StrictModel):
    """Keep a part of the rows, chosen by the hash of seed, task, own id and text; the others are `not_sampled`."""

    type: Literal["sample"]

    fraction: float | None = Field(None, gt=0, lt=1)
    """Each row is kept or not by its own hash: rows that are added or taken away do not change the verdict on the others."""

    rows: int | None = Field(None, gt=0)
    """Exactly so many, those with the smallest hashes; all of them where there are fewer, which the report says (`short_by`)."""

    seed: int = 1234
    """Another seed, another choice."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "SampleStep":
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("give either fraction or rows")
        return self


class CapStep(StrictModel):
    """Keep at most `rows` rows of each group, chosen by the hash of seed, task, own id and text; the others are `over_cap`."""

    type: Literal["cap"]

    by: Literal["task", "file", "user", "answer", "id_prefix"]
    """What makes a group. `file`: where the row comes from, without its line. `user`, `answer`: equal texts, but for white space.

    `id_prefix`: the id up to its first `separator`; an id without one is a group of its own.
    """

    rows: int = Field(gt=0)
    """Rows that stay of each group."""

    separator: str = Field("/", min_length=1)
    """Ends the prefix of an id; counts for `by: id_prefix` alone."""

    seed: int = 1234
    """Another seed, another choice."""


class SecretsStep(StrictModel):
    """Find credentials by the rules of detect-secrets, in every message, and drop the row or mask them."""

    type: Literal["secrets"]

    action: Literal["drop", "mask"]
    """`drop`: the row goes, as `secret`. `mask`: each secret becomes the name of its kind, such as `<AWS_ACCESS_KEY>`."""

    allow: tuple[Annotated[str, Field(min_length=8)], ...] = ()
    """Values that are no secrets although they look like some (test fixtures, published examples); compared whole."""
