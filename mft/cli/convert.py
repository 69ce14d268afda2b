"""`mft convert`: .bin weights -> safetensors."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    model: Annotated[Path, typer.Option(help="folder with config.json and pytorch_model*.bin")],
    out: Annotated[Path, typer.Option(help="folder of the same model with safetensors weights")],
    dtype: Annotated[str, typer.Option(help="keep, bf16, fp16 or fp32")] = "keep",
    shard_size: Annotated[str, typer.Option(help="largest weights file, such as 5GB")] = "5GB",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
) -> Outcome:
    """Turn PyTorch's .bin weights into safetensors without running their pickles, in bounded memory, and compare every number."""
    from dataclasses import asdict

    from mft.errors import ConfigError
    from mft.merging.config import parse_size
    from mft.release.convert import convert as convert_folder
    from mft.runs.progress import progress_bar

    if dtype not in ("keep", "bf16", "fp16", "fp32"):
        raise ConfigError([f"--dtype: '{dtype}': expected keep, bf16, fp16 or fp32"])
    try:
        shard_bytes = parse_size(shard_size)
    except ValueError as error:
        raise ConfigError([f"--shard-size: {error}"]) from error
    with progress_bar("convert") as report:
        result = convert_folder(model, out, dtype=dtype, shard_bytes=shard_bytes, overwrite=overwrite, progress=report)
    tied = "".join(f"; '{name}' is tied to '{kept}' and written once" for name, kept in result.left_out.items())
    return Outcome(asdict(result), [f"{result.tensors} tensors, {result.bytes:,} bytes in {len(result.files)} files, each number compared"
                                    f"{tied}", str(out)])
