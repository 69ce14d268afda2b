"""The chat format of Llama 2 and of CodeLlama 7-34B Instruct.

    <s>[INST] <<SYS>>\\nBe brief.\\n<</SYS>>\\n\\n2+2? [/INST] 4 </s><s>[INST] 3+3? [/INST]

The prompt ends at `]`: the space before the answer and the one before `</s>` belong to the answer and are trained. Source:
Meta's `llama/generation.py`, which strips the user's text (the system's included) and the answer, and refuses these tags in messages.
"""

from mft.formats.layout import BOS, EOS, Around, Layout, LayoutFormat


class Llama2(LayoutFormat):
    """`llama2`: a BOS before every round; the system's text stands inside the first user's turn."""

    name = "llama2"
    uses_bos = True
    layout = Layout(system=Around("<<SYS>>\n", "\n<</SYS>>\n\n"), system_place="first_user", user=Around(f"{BOS}[INST] ", " [/INST]"),
                    assistant="", lead=" ", tail=" ", end=EOS, strip=True)
    stop_strings = ("[INST]",)
    tags = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
