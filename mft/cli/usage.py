"""The verbs, the text of `mft --help`, and the flags that every verb takes. Imports nothing, so that help is instant."""

VERBS = {
    "quickstart": "the whole chain on the running Python's standard library, no network",
    "init": "a commented project to begin with: codefuse, ziya, domain",
    "run": "all stages of a config, each skipped when nothing it depends on has changed",
    "data": "build, encode, show, stats, diff, formats: from sources to masked token ids",
    "synthesize": "run, evolve, backtranslate, tests, filter: rows that a model makes and that compilers and tests judge",
    "plan": "memory per GPU, steps, hours and cost of a config, before anything is loaded",
    "train": "fine-tune an adapter",
    "launch": "start training on many nodes: torchrun, deepspeed, slurm",
    "merge": "adapter + base -> merged model, checked",
    "convert": ".bin weights -> safetensors, without running their pickles",
    "quantize": "one model or a matrix in fewer bits, its sizes beforehand, its quality afterwards",
    "release": "a stage of a run as users download it: model card, tokenizer, template, hashes",
    "manifest": "write, check: md5 and sha256 of a folder's files, also against a published card",
    "push": "upload a release to a model hub; without --really only what it would do",
    "generate": "answer a prompt, or a file of them, with a base + adapter or a merged model",
    "chat": "talk to a model in the terminal",
    "serve": "an OpenAI-compatible server: vLLM, or transformers",
    "evaluate": "loss, humaneval, mbpp, ...; score, check, compare: held-out loss, pass@k, given completions",
    "measure": "memory: what a model takes idle and while it answers, beside the prediction",
    "report": "one self-contained HTML page of a run",
    "doctor": "what this machine can and cannot do, and the remedy",
    "import": "a config of MFTCoder, LLaMA-Factory or axolotl, turned into a project",
    "config": "show, schema: the resolved config, its JSON Schema",
}

USAGE = """usage: mft [--json] [--debug] [-q] [-v] VERB ...

From raw instruction data to a measured code model.

verbs (mft VERB --help tells more):
{verbs}

everywhere:
  --json       print exactly one JSON object on stdout
  --debug      full log and tracebacks
  -q, -v       less, more on stderr
  --version    print the version

exit codes: 0 done, 1 a bug of mft, 2 a mistake in what was given, 3 a check found a fault, 130 interrupted (state saved)
"""


def usage() -> str:
    """The text of `mft --help`."""
    return USAGE.format(verbs="\n".join(f"  {name:<12} {help_text}" for name, help_text in VERBS.items()))


def split_flags(arguments: list[str]) -> tuple[dict[str, int], list[str]]:
    """Take the global flags out of the arguments, wherever they stand before a `--`."""
    names = {"--json": "json", "--debug": "debug", "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose",
             "--version": "version"}
    flags: dict[str, int] = {}
    rest: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            return flags, rest + arguments[index:]
        if argument in names:
            flags[names[argument]] = flags.get(names[argument], 0) + 1
        else:
            rest.append(argument)
    return flags, rest
