"""What the config.json of bases that shipped configs name says of their sizes, so that a run can be planned before 67 GB are fetched.

Source: the model cards and config.json of each on the hub. They serve plans alone: training reads the base's own files.
"""

from collections.abc import Mapping
from typing import Any


def _llama(layers: int, hidden: int, inner: int, heads: int, key_heads: int, vocabulary: int, longest: int) -> dict[str, Any]:
    return {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner,
            "num_attention_heads": heads, "num_key_value_heads": key_heads, "vocab_size": vocabulary, "max_position_embeddings": longest,
            "tie_word_embeddings": False}


_CODE_LLAMA_7B = _llama(32, 4096, 11008, 32, 32, 32016, 16384)
_CODE_LLAMA_13B = _llama(40, 5120, 13824, 40, 40, 32016, 16384)
_CODE_LLAMA_34B = _llama(48, 8192, 22016, 64, 8, 32000, 16384)
_CODE_LLAMA_70B = _llama(80, 8192, 28672, 64, 8, 32016, 16384)
_QWEN_7B = {**_llama(28, 3584, 18944, 28, 4, 152064, 32768), "model_type": "qwen2"}
_QWEN_32B = {**_llama(64, 5120, 27648, 40, 8, 152064, 32768), "model_type": "qwen2"}

KNOWN: Mapping[str, Mapping[str, Any]] = {
    **{f"codellama/CodeLlama-7b{kind}-hf": _CODE_LLAMA_7B for kind in ("", "-Instruct")},
    "codellama/CodeLlama-7b-Python-hf": {**_CODE_LLAMA_7B, "vocab_size": 32000},
    **{f"codellama/CodeLlama-13b{kind}-hf": _CODE_LLAMA_13B for kind in ("", "-Instruct")},
    "codellama/CodeLlama-13b-Python-hf": {**_CODE_LLAMA_13B, "vocab_size": 32000},
    **{f"codellama/CodeLlama-34b{kind}-hf": _CODE_LLAMA_34B for kind in ("", "-Python", "-Instruct")},
    "codefuse-ai/CodeFuse-CodeLlama-34B": _CODE_LLAMA_34B,
    **{f"codellama/CodeLlama-70b{kind}-hf": _CODE_LLAMA_70B for kind in ("", "-Python")},
    "codellama/CodeLlama-70b-Instruct-hf": {**_CODE_LLAMA_70B, "max_position_embeddings": 4096},
    **{f"deepseek-ai/deepseek-coder-33b-{kind}": _llama(62, 7168, 19200, 56, 8, 32256, 16384) for kind in ("base", "instruct")},
    **{f"deepseek-ai/deepseek-coder-6.7b-{kind}": _llama(32, 4096, 11008, 32, 32, 32256, 16384) for kind in ("base", "instruct")},
    **{f"Qwen/Qwen2.5-Coder-7B{kind}": _QWEN_7B for kind in ("", "-Instruct")},
    **{f"Qwen/Qwen2.5-Coder-32B{kind}": _QWEN_32B for kind in ("", "-Instruct")},
}
"""Hub id -> the part of its config.json that a plan needs."""
