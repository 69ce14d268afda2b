"""A model loaded in this process as a client: the same requests, the same store, no server.

Requests with the same settings are answered in batches that follow from the list of requests alone, and each batch draws from a seed that
follows from what is in it. Where a batch is there in part, it is written anew for what is missing. So a run that was killed and goes on
gives the answers of one that was never killed.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from mft.errors import DataError, FormatError, ModelError
from mft.formats.base import PromptFormat
from mft.generation.chat import load_prompts
from mft.generation.completion import Completion
from mft.generation.hf import context_limit, generate
from mft.hashes import hash_file, sha256_json
from mft.modeling.adapters import is_adapter, read_adapter_facts
from mft.modeling.base import resolve_base
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base, load_model
from mft.synthesis.client.amounts import Amount
from mft.synthesis.client.books import Books
from mft.synthesis.client.config import LocalConfig
from mft.synthesis.client.exchange import chat_of
from mft.synthesis.client.kept import Kept
from mft.synthesis.client.ledger import Ledger
from mft.synthesis.client.request import Answer, Progress, Request, Unanswered
from mft.synthesis.client.store import AnswerStore
from mft.tokenization.compatibility import stop_ids
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import TextTokenizer
from mft.training.job import base_file_hashes

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LocalClient:
    """Answers with a model of this machine; `Client` of the seam. Made by `open_client`. The model is loaded when it is first needed."""

    config: LocalConfig
    store: AnswerStore
    books: Books
    ledger: Ledger
    beside: Path | None = None
    _folder: Path = field(init=False)
    _tokenizer: TextTokenizer = field(init=False)
    _format: PromptFormat = field(init=False)
    _identity: dict[str, Any] = field(init=False)
    _model: PreTrainedModel | PeftModel | None = None

    def __post_init__(self) -> None:
        config = self.config
        self._folder = _folder_of(config.model, self.beside)
        if config.quantization == "nf4" and is_adapter(self._folder):
            raise ModelError(f"{self._folder}: is an adapter folder, whose base is held as it was while training; leave out quantization")
        self._tokenizer, self._format = load_prompts(self._folder, config.format)
        self._identity = {"model": _weights(self._folder), "tokenizer": self._tokenizer.sha256, "format": self._format.reference,
                          "dtype": config.dtype, "quantization": config.quantization, "seed": config.seed}

    def ask(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Answer | Unanswered]:
        """As `Client.ask`. A request that the format cannot render, or that leaves no room for an answer, is refused.

        Raises:
            ModelError: the model cannot be loaded. OutputError: the disk is full.
        """
        kept = Kept(self.store, self.ledger, requests, [self._key_of(request) for request in requests])
        if progress:
            progress(kept.settled, len(requests))
        if kept.missing:
            self._ask_missing(kept, progress)
        kept.log()
        return kept.results()

    def close(self) -> None:
        """Let go of the model's memory."""
        self._model = None

    def _key_of(self, request: Request) -> str:
        return sha256_json({**self._identity, "messages": chat_of(request), "max_tokens": request.max_tokens, "sample": request.sample,
                            "temperature": request.temperature, "top_p": request.top_p, "stops": list(request.stops)})

    def _ask_missing(self, kept: Kept, progress: Progress | None) -> None:
        prompts: dict[int, list[int]] = {}
        missing = set(kept.missing)
        for place in kept.places:
            encoded = self._encode(kept.requests[place])
            if not isinstance(encoded, Unanswered):
                prompts[place] = encoded
            elif place in missing:
                kept.settle(place, encoded)
        if progress:
            progress(kept.settled, len(kept.keys))
        for batch in _batches(prompts, kept.requests, self.config.batch_size):
            wanted = [place for place in batch if place in missing]
            if not wanted:
                continue
            written = self._generate(kept, batch, prompts)
            for place in wanted:
                kept.settle(place, self._keep(kept, place, len(prompts[place]), written[place], last=place == wanted[-1]))
            if progress:
                progress(kept.settled, len(kept.keys))

    def _encode(self, request: Request) -> list[int] | Unanswered:
        try:
            prompt = encode_prompt(list(request.messages), self._format, self._tokenizer)
        except (FormatError, DataError):
            return Unanswered("refused", self._format.fault(request.messages, prompt=True) or "cannot_be_encoded")
        limit = context_limit(self._loaded())
        if limit is not None and len(prompt) + request.max_tokens > limit:
            return Unanswered("refused", f"over_context: {len(prompt)} tokens and {request.max_tokens} more are over the model's {limit}")
        return prompt

    def _generate(self, kept: Kept, places: Sequence[int], prompts: dict[int, list[int]]) -> dict[int, Completion]:
        first = kept.requests[places[0]]
        seed = int(sha256(" ".join([str(self.config.seed), *(kept.keys[place] for place in places)]).encode()).hexdigest()[:8], 16)
        found = generate(self._loaded(), self._tokenizer, [prompts[place] for place in places], max_new_tokens=first.max_tokens,
                         temperature=first.temperature, top_p=first.top_p, seed=seed, batch_size=len(places),
                         stop_ids=stop_ids(self._format, self._tokenizer), stop_strings=(*first.stops, *self._format.stop_strings))
        return dict(zip(places, found, strict=True))

    def _keep(self, kept: Kept, place: int, prompt_tokens: int, completion: Completion, *, last: bool) -> Answer:
        key, purpose = kept.keys[place], kept.requests[place].purpose
        amount = Amount(prompt_tokens, len(completion.token_ids), requests=1)
        cut = completion.finish_reason == "length"
        self.store.append({"record": "started", "key": key, "purpose": purpose, "worst": amount.to_json()})
        self.store.append({"record": "answer", "key": key, "text": completion.text, "cut": cut, "known": amount.to_json()}, durable=last)
        self.books.hold(key, purpose, amount, lambda: False)
        self.books.settle(key, known=amount, answered=True)
        return Answer(completion.text, cut, amount.prompt_tokens, amount.completion_tokens)

    def _loaded(self) -> PreTrainedModel | PeftModel:
        if self._model is None:
            config = self.config
            logger.info("loading %s", self._folder)
            if is_adapter(self._folder):
                self._model = load_model(self._folder, dtype=config.dtype)
            else:
                self._model = load_base(self._folder, QuantizationConfig(type=config.quantization, compute_dtype=config.dtype))
        return self._model


def _folder_of(name: str, beside: Path | None) -> Path:
    for path in (Path(name), *([beside / name] if beside else [])):
        if path.is_dir() and is_adapter(path):
            return path.resolve()
    return resolve_base(name, beside)


def _weights(folder: Path) -> dict[str, Any]:
    """Hashes of what the answers come from."""
    if not is_adapter(folder):
        return base_file_hashes(folder)
    own = {path.name: hash_file(path)["sha256"] for path in sorted(folder.glob("adapter_*"))}
    return {**own, "base": read_adapter_facts(folder).base_files}


def _batches(prompts: dict[int, list[int]], requests: Sequence[Request], size: int) -> Iterator[list[int]]:
    """Places of requests with the same settings, `size` at a time."""
    groups: dict[Request, list[int]] = {}
    for place in prompts:
        settings = replace(requests[place], purpose="", messages=(), sample=0)
        groups.setdefault(settings, []).append(place)
    for places in groups.values():
        yield from (places[start:start + size] for start in range(0, len(places), size))
