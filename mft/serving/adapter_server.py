"""`python -m mft.serving.adapter_server FOLDER`: transformers' own server with an adapter on its base, unmerged, held as while training.

`transformers serve` loads a folder by its config.json, which an adapter has not. Here its handlers and routes are taken as they are, and
only the loading is ours. Written against transformers 5.23, `transformers/cli/serve.py`.
"""

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from transformers import AutoTokenizer
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.response import ResponseHandler
from transformers.cli.serving.server import build_server
from transformers.cli.serving.systemone import SystemOneHandler
from transformers.cli.serving.transcription import TranscriptionHandler
from transformers.cli.serving.utils import GenerationState

from mft.files import read_json
from mft.modeling.load import load_model


class AdapterManager(ModelManager):
    """Loads one folder, whatever a request calls it; it is never unloaded."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        super().__init__(force_model=name)

    def _load_processor(self, model_id_and_revision: str, gguf_file: str | None = None) -> Any:
        return AutoTokenizer.from_pretrained(self._folder)

    def _load_model(self, model_id_and_revision: str, tqdm_class: Any = None, progress_callback: Any = None,
                    gguf_file: str | None = None) -> Any:
        model = load_model(self._folder)
        for key, value in read_json(self._folder / "generation_config.json").items():
            setattr(model.get_base_model().generation_config, key, value)
        return model.get_base_model()   # its layers hold the adapter; the wrapper's generate takes no positional inputs


def build_app(folder: Path, name: str) -> Any:
    """The FastAPI app of `transformers serve` over this folder."""
    manager, state = AdapterManager(folder, name), GenerationState()
    return build_server(
        manager, ChatCompletionHandler(manager, state, chat_template_kwargs={}),
        completion_handler=CompletionHandler(manager, state),
        response_handler=ResponseHandler(manager, state, chat_template_kwargs={}),
        transcription_handler=TranscriptionHandler(manager, state),
        systemone_handler=SystemOneHandler(manager, state, chat_template_kwargs={}, decision_config=None), generation_state=state)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--name", required=True)
    given = parser.parse_args()
    uvicorn.run(build_app(given.folder, given.name), host=given.host, port=given.port, log_level="info")


if __name__ == "__main__":
    main()
