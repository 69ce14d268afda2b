"""Train the tiny base model in mft/assets/tiny-code-llama from the running Python's standard library.

    export MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184   # glibc: keep big buffers, 1.35x faster
    python scripts/train_tiny_base.py --out mft/assets/tiny-code-llama

CodeLlama's architecture at 7 million parameters with a Llama-style BPE of 4,096 pieces. The files that
data_recipes/python-stdlib.yaml holds out for validation are never read for training, neither by the tokenizer nor by
the model. Seeded: the same Python, torch build, thread count and flags give the same weights. The shipped weights: CPython
3.11.7, torch 2.13.0 on the CPU, 1,500 steps, on two threads up to step 600 and on one after it, in 57 minutes of training on
a machine that did other work too.

Optimizer: Muon on the matrices of the layers, AdamW on embedding, head and norms; the learning rate is constant after
a warm-up and falls linearly over the last `--decay` of the steps. The last fifth of the steps sees rows of 1,024
tokens, the ones before rows of 512. `--resume` goes on from OUT's newest state (kept beside OUT, removed at the end).
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from mft.data.split import is_validation
from mft.data.walk import source_files, standard_library

EXCLUDE = ("**/test*/**", "**/idlelib/**", "**/lib2to3/**")   # as in data_recipes/python-stdlib.yaml
VALIDATION = 0.05
VOCABULARY = 4096
CONTROL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
TOKENS_PER_STEP = 8192


def read_corpus() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training, held-out) lists of (relative path, text) of the standard library."""
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for relative, path in source_files(standard_library(), ".py", EXCLUDE):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text:
            parts[is_validation(relative, VALIDATION)].append((relative, text))
    return parts


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A Llama-style BPE: byte fallback, dummy prefix, no piece with a newline, spaces only at the start of a piece.

    Merges are learnt inside words (`▁word`, runs of `▁`), then the pre-tokenizer is taken away, as in Llama's file.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\n\r\t\x0c]+"), "removed"),
        pre_tokenizers.Split(Regex(r"▁+(?=▁[^▁])|▁?[A-Za-z_]+|▁?[0-9]|▁?[^A-Za-z_0-9▁]+|▁+"), "isolated"),
    ])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*CONTROL, *BYTES], limit_alphabet=160, show_progress=False))
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in CONTROL]
    state["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.encode_special_tokens = True
    return tokenizer


def build_model() -> LlamaForCausalLM:
    """A CodeLlama of 7.3 million parameters, float32, weights drawn from the current seed."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=1_000_000.0,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="sdpa")
    return LlamaForCausalLM(config).float()


def encode_files(tokenizer: Tokenizer, files: list[tuple[str, str]]) -> list[list[int]]:
    """Ids of each file: `<s>`, its text, `</s>`."""
    return [[1, *tokenizer.encode(text, add_special_tokens=False).ids, 2] for _, text in files]


def batches(documents: list[list[int]], seed: int, width: int, steps: int) -> Iterator[torch.Tensor]:
    """`steps` batches [TOKENS_PER_STEP / width, width + 1] cut from the shuffled files laid end to end, epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[torch.Tensor] = []
    size = TOKENS_PER_STEP // width
    for _ in range(steps):
        while len(rows) < size:
            order = torch.randperm(len(documents), generator=generator).tolist()
            shift = int(torch.randint(width, (1,), generator=generator))
            stream = torch.tensor([token for index in order for token in documents[index]][shift:])
            count = (len(stream) - 1) // width
            cut = [stream[i * width:(i + 1) * width + 1] for i in range(count)]
            rows += [cut[i] for i in torch.randperm(count, generator=generator).tolist()]
        yield torch.stack(rows[:size])
        del rows[:size]


def make_optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    outer = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def bits_per_byte(model: LlamaForCausalLM, tokenizer: Tokenizer, files: list[tuple[str, str]], width: int = 1024) -> float:
    """Negative log2-likelihood of the files in windows of `width` tokens, over their UTF-8 bytes (`</s>` left out)."""
    model.eval()
    nats, total = 0.0, 0
    with torch.inference_mode():
        for (_, text), ids in zip(files, encode_files(tokenizer, files), strict=True):
            ids = ids[:-1]
            for start in range(0, len(ids) - 1, width):
                window = torch.tensor([ids[start:start + width + 1]])
                logits = model(window[:, :-1], use_cache=False).logits.float()
                nats += torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum").item()
            total += len(text.encode())
    model.train()
    return nats / math.log(2) / total


def learning_rate(step: int, steps: int, decay: float) -> float:
    """Share of the peak rate at a step: linear warm-up over 50 steps, constant, linear fall to 2% over the last part."""
    if step < 50:
        return (step + 1) / 50
    left = (steps - step) / (decay * steps)
    return max(0.02, min(1.0, left))


def write_model(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path, facts: dict[str, object]) -> None:
    """The Hugging Face folder: bf16 safetensors, tokenizer.json that plain AutoTokenizer reads right, facts.json."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.encode_special_tokens = False
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<unk>", "model_max_length": 2048, "padding_side": "left", "clean_up_tokenization_spaces": False,
    }, indent=2) + "\n")
    (out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def train_step(model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], rows: torch.Tensor, rate: float) -> float:
    """One optimizer step on rows [B, T + 1]; returns the loss in nats."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(rows[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def train(model: LlamaForCausalLM, documents: list[list[int]], options: argparse.Namespace, evaluate: Callable[[], float]) -> None:
    """All steps, or those after the newest state with --resume."""
    optimizers = make_optimizers(model, options.rate)
    state_path, start = options.out.with_suffix(".state.pt"), 0
    if options.resume and state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
    long_from = int(0.8 * options.steps)
    short = batches(documents, options.seed, 512, long_from)
    long = batches(documents, options.seed + 1, 1024, options.steps - long_from)
    begin = time.time()
    for step, rows in enumerate(itertools.chain(short, long)):
        if step < start:
            continue
        loss = train_step(model, optimizers, rows, options.rate * learning_rate(step, options.steps, options.decay))
        if step % 20 == 0:
            speed = (step + 1 - start) * TOKENS_PER_STEP / (time.time() - begin)
            print(f"step {step} loss {loss:.4f} {speed:.0f} tokens/s {time.time() - begin:.0f} s", flush=True)
        if step % 300 == 299 and step + 1 < options.steps:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            saved_optimizers = [optimizer.state_dict() for optimizer in optimizers]
            torch.save({"model": model.state_dict(), "optimizers": saved_optimizers, "step": step + 1}, state_path)
            print(f"step {step} held-out bits per byte {evaluate():.4f} (first 12 files)", flush=True)


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    training, heldout = read_corpus()
    tokenizer = train_tokenizer([text for _, text in training])
    documents = encode_files(tokenizer, training)
    tokens, size = sum(map(len, documents)), sum(len(text.encode()) for _, text in training)
    print(f"{len(training)} files, {size} bytes, {tokens} tokens ({size / tokens:.2f} bytes a token); "
          f"{len(heldout)} files held out", flush=True)
    model = build_model()
    train(model, documents, options, lambda: bits_per_byte(model, tokenizer, heldout[:12]))
    model.to(torch.bfloat16).float()
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()), "steps": options.steps,
        "tokens_seen": options.steps * TOKENS_PER_STEP, "training_files": len(training), "training_tokens": tokens,
        "heldout_files": len(heldout), "heldout_bits_per_byte": round(bits_per_byte(model, tokenizer, heldout), 4),
        "seed": options.seed, "torch": torch.__version__,
    }
    print(json.dumps(facts), flush=True)
    write_model(model, tokenizer, options.out, facts)
    options.out.with_suffix(".state.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
