"""The formats of CodeFuse-CodeLlama-34B: role tags of ordinary text, no BOS, nothing stripped.

    codefuse         <|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>
    codefuse_4bit    the same, with a newline after a user's content that does not end in one
    codefuse_card    each turn on a line of its own: a newline after every content that does not end in one, and after </s>

Source: MFTCoder, release of 2023-09-27, `preprocess_data.py`, and both quickstart lines of the model card (codefuse); the
quickstart of the 4-bit release's card (codefuse_4bit); the layout that both cards draw (codefuse_card).
"""

from dataclasses import replace
from typing import Final

from mft.formats.layout import EOS, Around, Layout, LayoutFormat

OPENING: Final = "<|role_start|>"
SYSTEM, HUMAN, BOT = (f"{OPENING}{role}<|role_end|>" for role in ("system", "human", "bot"))
LAYOUT: Final = Layout(system=Around(SYSTEM), user=Around(HUMAN), assistant=BOT, end=EOS)


class CodeFuse(LayoutFormat):
    """`codefuse`: every turn is its tag and its content; an answer ends with the tokenizer's eos."""

    name = "codefuse"
    layout = LAYOUT
    stop_strings = (OPENING,)
    tags = (OPENING,)


class CodeFuse2023(CodeFuse):
    """`codefuse_2023`: the same text, with the ids of the 2023 run.

    That run encoded each tag and each content alone, each with a dummy prefix of its own, while its server encoded the
    prompt as one string. So its training ids are not those of its prompts: the one exception to law 3.
    """

    name = "codefuse_2023"
    segmentwise = True


class CodeFuse4Bit(CodeFuse):
    """`codefuse_4bit`: what the quickstart of the 4-bit release sends."""

    name = "codefuse_4bit"
    layout = replace(LAYOUT, user=Around(HUMAN, "\n", unless_ended=True))


class CodeFuseCard(CodeFuse):
    """`codefuse_card`: the drawing of the cards. Its newlines are typography; the model was not trained with them."""

    name = "codefuse_card"
    layout = replace(LAYOUT, system=Around(SYSTEM, "\n", unless_ended=True), user=Around(HUMAN, "\n", unless_ended=True), then="\n")
