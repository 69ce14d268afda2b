"""ChatML: every turn between `<|im_start|>` and `<|im_end|>`, which must be control tokens of the vocabulary.

    <|im_start|>system\\nBe brief.<|im_end|>\\n<|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n4<|im_end|>\\n

On a vocabulary without them each tag would be several ordinary pieces that a user can write too: refused.
"""

from typing import Final

from mft.formats.layout import Around, Layout, LayoutFormat

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"


class ChatML(LayoutFormat):
    """`chatml`: an answer ends with `<|im_end|>`, trained; the newline after it is not."""

    name = "chatml"
    layout = Layout(system=Around(f"{START}system\n", f"{END}\n"), user=Around(f"{START}user\n", f"{END}\n"),
                    assistant=f"{START}assistant\n", end=END, then="\n", control=(START, END))
    stop_strings = (START,)
