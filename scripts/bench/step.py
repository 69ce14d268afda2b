"""The speed of a QLoRA step: mft's trainer beside TRL's SFTTrainer on the same packed rows, and no figure where a gate does not hold.

    PYTHONPATH=scripts/bench python scripts/bench/step.py --shape 34b [--layers 12] [--context 4096] [--rows 8] [--rank 64] [--dense]
        [--data rows.jsonl.gz] [--repeats 5] [--rounds 2] [--table] [--only mft,trl] [--out FILE.json] [--json]

A random model of the shape is made on the device in NF4, tensor by tensor, with a LoRA adapter in all linear layers; its B is not zero
and there is no dropout, so that all can be compared. One step is the same packed rows of real conversations ($MFT_SHARED_DATA, or
`--data`; else random ids; `--dense`: one sample fills a row), made again and again at a constant rate. Every contestant runs in a process
of its own.

  proof   each contestant makes `--proof-steps` steps. A process with plain transformers makes the first one too: samples alone, eager
          attention, all logits. GATES: the loss of the first step within 1e-3 of that one's; the gradient of each tensor of the adapter
          with a cosine of at least 0.999, a norm above 0 and within 5% of that one's; the loss falls; the same ids in every step, none
          dropped.
  timing  `--rounds` times all in turns, A B A B, each a warm-up step, printed apart, and `--repeats` that count. The ids of each step,
          and the losses of the steps that the proof has made too, must be those of the proof.

A contestant that fails a gate has no figure, and the exit code is 3. One without enough memory shows OOM; `--peer-memory SIZE` limits the
address space of peers. tokens/s are real tokens (on a busy machine without a GPU the rate by CPU time is the steadier one); TFLOP/s are
useful ones: what the shape needs without recomputation, padding or making 4-bit weights whole. `GEMM`: the speed of the MLP's product,
measured in every process, the best of all. `--table`: mft alone, a switch more in each row; what
a row needs and this machine has not stands in its place.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from step_contestants import Seen, Spec
from step_gates import faults_of, timing_faults
from step_work import SHAPES, StepWork, make_work

from mft.config.sizes import parse_size
from mft.errors import MftError
from mft.modeling.kernels import kernel_faults
from mft.modeling.memory import StepShape, adapter_parameters
from mft.modeling.shape import shape_of
from mft.training.config import KernelsConfig
from mft.training.utilization import flops_per_token, mean_keys

HERE = Path(__file__).resolve().parent
Contestants = dict[str, tuple[str, dict[str, Any]]]

AUTO = {"recompute": "auto", "micro_batch_rows": "auto"}

PEERS: Contestants = {
    "mft": ("mft", AUTO),
    "trl": ("trl", {}),
    "trl packed": ("trl", {"packed": True}),
    "trl packed, no checkpointing": ("trl", {"packed": True, "gradient_checkpointing": False})}
"""`trl`: as SFTTrainer sets it up by itself. The last: its best public setting where it fits."""

TABLE: Contestants = {
    "recompute: full": ("mft", {"recompute": "full"}),
    "+ recompute: auto": ("mft", {"recompute": "auto"}),
    "+ micro_batch_rows: auto": ("mft", AUTO),
    "+ kernels.norms: liger": ("mft", {**AUTO, "kernels": {"norms": "liger"}}),
    "+ kernels.rope: liger": ("mft", {**AUTO, "kernels": {"norms": "liger", "rope": "liger"}}),
    "+ kernels.mlp: liger": ("mft", {**AUTO, "kernels": {"norms": "liger", "rope": "liger", "mlp": "liger"}}),
    "kernels.compile instead": ("mft", {**AUTO, "kernels": {"compile": True}})}
"""Each row has the switches of the one above and one more; the last one those of the third and one more."""


class Bench:
    """Runs the processes of a benchmark, their files in `folder`."""

    def __init__(self, work: StepWork, contestants: Contestants, folder: Path, options: argparse.Namespace) -> None:
        self.work, self.contestants, self.folder, self.options = work, contestants, folder, options
        work.save(folder / "work.json")

    def process(self, name: str, steps: int, gradients: Path | None = None) -> Seen | None:
        """One contestant in a process of its own; None where memory did not suffice.

        Raises:
            MftError: the process failed; the end of what it said.
        """
        kind, settings = ("reference", {}) if name == "reference" else self.contestants[name]
        limit = parse_size(self.options.peer_memory) if self.options.peer_memory and kind == "trl" else None
        room = parse_size(self.options.room) if self.options.room else None
        spec = Spec(kind, str(self.folder / "work.json"), steps, settings, str(gradients) if gradients else None, room, limit)
        (self.folder / "spec.json").write_text(json.dumps(asdict(spec)), encoding="utf-8")
        out = self.folder / "seen.json"
        out.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, str(HERE / "step_contestants.py"), str(self.folder / "spec.json"), str(out)],
                              capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(HERE)})
        if not out.is_file():
            raise MftError(f"{name}: the process ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
        facts = json.loads(out.read_text(encoding="utf-8"))
        return None if facts.get("oom") else Seen(**facts)

    def prove(self) -> tuple[Seen, dict[str, Seen | None], dict[str, list[str]]]:
        """The reference, what each contestant did in the proof, and the gates that did not hold."""
        reference = self.process("reference", 1, self.folder / "reference.pt")
        if reference is None:
            raise MftError("the reference did not fit; take fewer --layers, or a shorter --context")
        wanted = torch.load(self.folder / "reference.pt", weights_only=True)
        proven: dict[str, Seen | None] = {}
        faults: dict[str, list[str]] = {}
        for name in self.contestants:
            note(f"proof: {name}")
            seen = proven[name] = self.process(name, self.options.proof_steps, self.folder / "found.pt")
            if seen is not None:
                faults[name] = faults_of(self.work, reference, wanted, seen, torch.load(self.folder / "found.pt", weights_only=True))
        return reference, proven, faults

    def time(self, proven: dict[str, Seen | None], faults: dict[str, list[str]]) -> dict[str, list[Seen]]:
        """A B A B: those that have proven that they do the same work."""
        timed: dict[str, list[Seen]] = {name: [] for name in self.contestants}
        for number in range(self.options.rounds):
            for name, proof in proven.items():
                if proof is None or faults[name]:
                    continue
                note(f"round {number + 1} of {self.options.rounds}: {name}")
                seen = self.process(name, 1 + self.options.repeats)
                if seen is None:
                    proven[name] = None
                    continue
                faults[name] = timing_faults(proof, seen)
                timed[name].append(seen)
        return timed


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark as plain data.

    Raises:
        MftError: the data or a process failed.
    """
    every = TABLE if options.table else PEERS
    names = options.only.split(",") if options.only else list(every)
    if unknown := [name for name in names if name not in every]:
        raise MftError(f"--only: {', '.join(unknown)}: not a contestant; there are: {', '.join(every)}")
    work = make_work(options.shape, layers=options.layers, context=options.context, rows=options.rows, rank=options.rank,
                     nf4=not options.no_nf4, dense=options.dense, data=options.data)
    absent = {name: faults for name in names if (faults := cannot_run(work, every[name][1]))}
    load, clocks = os.getloadavg(), clocks_now()
    with TemporaryDirectory() as scratch:
        bench = Bench(work, {name: every[name] for name in names if name not in absent}, Path(scratch), options)
        reference, proven, faults = bench.prove()
        timed = bench.time(proven, faults)
    flops = useful_flops(work)
    gemm = max(seen.gemm_flops for seen in [reference, *(one for own in timed.values() for one in own)])
    rows = {name: {"cannot_run": absent[name]} if name in absent else
            figures(work, flops, gemm, timed[name], proven[name], faults.get(name, [])) for name in names}
    return {
        "machine": {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "cpus": os.cpu_count(),
                    "threads": os.environ.get("OMP_NUM_THREADS"), "load_before": load, "load_after": os.getloadavg(),
                    "clocks_before": clocks, "clocks_after": clocks_now()},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "shape": options.shape, "layers": work.config["num_hidden_layers"], "rank": options.rank, "type": "nf4" if work.nf4 else "none",
        "computes_in": "bf16" if work.bf16 else "float32", "data": work.source, "context": options.context, "rows": len(work.rows),
        "samples": len(work.samples), "tokens": work.tokens, "trained_tokens": work.trained_tokens, "flops_per_token": flops,
        "gemm_flops": gemm, "contestants": rows}


def cannot_run(work: StepWork, settings: dict[str, Any]) -> list[str]:
    """Why this machine has not what a contestant's settings ask for."""
    return kernel_faults(KernelsConfig(**settings.get("kernels", {})).liger, work.config, work.device)


def useful_flops(work: StepWork) -> float:
    """Of one token, forward and backward, nothing computed twice; logits of the trained tokens alone."""
    step = StepShape(shape_of(work.config), work.quantization, work.adapter, work.context)
    return flops_per_token(work.config, keys=mean_keys(work.lengths), adapter_parameters=adapter_parameters(step),
                           trained_share=work.trained_tokens / work.tokens)


def figures(work: StepWork, flops: float, gemm: float, timed: Sequence[Seen], proof: Seen | None, faults: list[str]) -> dict[str, Any]:
    """One contestant's row: OOM, or the gates that it failed, or its figures."""
    if proof is None:
        return {"oom": True}
    if faults or not timed:
        return {"faults": faults}
    seconds = [second for seen in timed for second in seen.seconds()[1:]]
    rates = [work.tokens / second for second in seconds]
    cpu = [work.tokens / second for seen in timed for second in seen.cpu_seconds()[1:]]
    return {"tokens_per_s": statistics.median(rates), "least": min(rates), "most": max(rates), "steps": len(rates),
            "tokens_per_cpu_s": statistics.median(cpu), "useful_flops": statistics.median(rates) * flops,
            "share_of_gemm": statistics.median(rates) * flops / gemm,
            "peak_bytes": max(seen.peak_bytes for seen in timed), "warm_up_s": [seen.seconds()[0] for seen in timed],
            "chosen": proof.chosen, "losses": proof.losses}


def clocks_now() -> str:
    """As the driver or the kernel says; empty where neither does."""
    if torch.cuda.is_available():
        asked = subprocess.run(["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu", "--format=csv,noheader"],
                               capture_output=True, text=True, check=False)
        return asked.stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    found = [line.split(":")[1].strip() for line in lines if line.startswith("cpu MHz")]
    return f"{', '.join(found)} MHz" if found else ""


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    machine = result["machine"]
    print(f"{machine['device']}, {machine['cpus']} CPUs, {machine['threads']} threads; load {machine['load_before'][0]:.2f} before, "
          f"{machine['load_after'][0]:.2f} after; clocks {machine['clocks_before'] or 'unknown'}; "
          + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    print(f"{result['shape']}, {result['layers']} layers, {result['type']}, {result['computes_in']}, LoRA rank {result['rank']}, random "
          f"weights; {result['rows']} rows of {result['context']:,}: {result['samples']} samples, {result['tokens']:,} tokens, "
          f"{result['trained_tokens']:,} trained; {result['data']}")
    warm = ", ".join(f"{name} {statistics.median(row['warm_up_s']):.2f} s" for name, row in result["contestants"].items()
                     if "warm_up_s" in row)
    print(f"GEMM in this run: {result['gemm_flops'] / 1e12:.3f} TFLOP/s; {result['flops_per_token'] / 1e9:.3f} useful GFLOP a token; "
          f"warm-up steps, not counted: {warm or 'none'}\n")
    print("| | tokens/s | least to most | tokens/CPU s | useful TFLOP/s | of GEMM | peak GB | |\n|---|---|---|---|---|---|---|---|")
    for name, row in result["contestants"].items():
        if row.get("oom"):
            print(f"| {name} | OOM | | | | | | |")
        elif (reasons := row.get("faults") or row.get("cannot_run")) is not None:
            print(f"| {name} | no figure | | | | | | {'; '.join(reasons)} |")
        else:
            print(f"| {name} | {row['tokens_per_s']:,.0f} | {row['least']:,.0f} to {row['most']:,.0f} | "
                  f"{row['tokens_per_cpu_s']:,.0f} | {row['useful_flops'] / 1e12:.3f} | {row['share_of_gemm']:.0%} | "
                  f"{row['peak_bytes'] / 1e9:.2f} | {row['chosen']} |")


def note(text: str) -> None:
    """Say how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--layers", type=int, help="a slice of the shape; default: its own")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a packed row")
    parser.add_argument("--rows", type=int, default=8, help="packed rows of a step")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--no-nf4", action="store_true", help="the base in the type that is computed in")
    parser.add_argument("--dense", action="store_true", help="each row one sample of random ids")
    parser.add_argument("--data", type=Path, help="conversations; default: docstring_gen of $MFT_SHARED_DATA, else random ids")
    parser.add_argument("--proof-steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5, help="counted steps of a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each contestant, in turns")
    parser.add_argument("--room", help="memory that mft plans for, such as 80GB; default: what is free")
    parser.add_argument("--peer-memory", help="address space of a peer's process, such as 4GB; beyond it is OOM")
    parser.add_argument("--table", action="store_true", help="mft alone, a switch more in each row")
    parser.add_argument("--only", help="contestants, by name, with commas")
    parser.add_argument("--out", type=Path, help="write the result here as JSON too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all gates held; 2: a mistake in what was asked for, or a process failed; 3: a gate did not hold."""
    options = parse(arguments)
    if min(options.rows, options.repeats, options.rounds, options.context - 15, options.proof_steps - 1) < 1:
        note("--rows, --repeats and --rounds are at least 1, --proof-steps 2, --context 16")
        return 2
    try:
        result = run(options)
    except (MftError, ValueError) as error:
        note(str(error))
        return 2
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 3 if any(row.get("faults") for row in result["contestants"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
