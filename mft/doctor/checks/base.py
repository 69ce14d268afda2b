"""The config's base and tokenizer: present, whole, and such that training on them means what it should."""

import re
from pathlib import Path

from mft.doctor.child import ProbeFailed
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, skipped, together
from mft.doctor.units import size
from mft.errors import MftError, ModelError
from mft.formats.base import PromptFormat
from mft.modeling.base import check_context, read_model_config
from mft.modeling.config import ModelConfig

AGAIN = "download or copy the base again (hf download NAME --local-dir FOLDER checks every file)"


def check_base(context: Context) -> Finding:
    """config.json, every weights file against its header and the index, and the context against what the base was made for."""
    subject, base = context.subject, context.base()
    if subject is None or base is None:
        return skipped("no CONFIG was given")
    if base.folder is None:
        if base.kind == "hub":
            return skipped(f"{base.why}; see the check hub")
        return fault(base.why, "give the folder that holds config.json and the weights, a hub id, or tiny-code-llama")
    try:
        config = read_model_config(base.folder)
        check_context(base.folder, subject.model.context)
        findings = []
    except ModelError as error:
        longest = re.search(r"at most (\d+) tokens", str(error))
        findings = [fault(str(error), f"set model.context to at most {longest[1]}" if longest else AGAIN)]
        config = {}
    try:
        weights = context.weights(base.folder)
    except ProbeFailed as error:
        return together([*findings, fault(f"{base.folder}: the weights files cannot be read: {error}", AGAIN)], "")
    findings += [fault(problem, AGAIN) for problem in weights["faults"]]
    if not weights["files"]:
        other = ", only .bin files" if any(base.folder.glob("*.bin")) else ""
        findings.append(fault(f"{base.folder}: has no .safetensors weights{other}",
                              "take the repository's safetensors revision, or convert it once with transformers' save_pretrained"))
    said = (f"{base.folder}: {config.get('model_type', 'model')} of {(weights['linear'] + weights['other']) / 1e6:,.1f}M parameters in "
            f"{len(weights['files'])} whole file{'s' * (len(weights['files']) != 1)}, {size(weights['bytes'])}")
    return together(findings, said, **weights)


def check_tokenizer(context: Context) -> Finding:
    """Read as the trainer reads it, every check of the parity gate by name, and whether the config's format goes with it."""
    from mft.tokenization.load import read_tokenizer
    from mft.tokenization.parity import parity_gate

    subject, base = context.subject, context.base()
    if subject is None or base is None:
        return skipped("no CONFIG was given")
    if base.folder is None:
        return skipped("the base is not on this machine; see the checks base and hub")
    remedy = ("take tokenizer.json from the model's own repository; one that transformers has saved again may have lost its normalizer "
              "(transformers issues 46491, 47487)")
    try:
        tokenizer = read_tokenizer(base.folder)
    except MftError as error:
        return fault(str(error), remedy)
    checks = parity_gate(tokenizer)
    findings = [fault(f"{base.folder}: {check.name}: {check.detail}", remedy) for check in checks if not check.ok]
    findings += _format_findings(subject.model, base.folder)
    return together(findings, f"{tokenizer.vocab_size} pieces, {tokenizer.family}; {len(checks)} checks of the parity gate passed; "
                              f"the format {_name(subject.model)} goes with it", sha256=tokenizer.sha256,
                    gate={check.name: check.detail for check in checks})


def _format_findings(model: ModelConfig, folder: Path) -> list[Finding]:
    """Why the format does not go with the tokenizer. With `model.add_tokens`, the tokens that will be there count as there."""
    from mft.tokenization.compatibility import format_for, own_template
    from mft.tokenization.load import read_tokenizer

    tokenizer = read_tokenizer(folder)
    try:
        if not model.add_tokens:
            format_for(model.format, tokenizer)
            return []
        from mft import formats

        control = {**tokenizer.control_patterns, **{token: re.escape(token) for token in model.add_tokens}}
        made: PromptFormat = formats.get(model.format, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token, control=control,
                                         template=own_template(tokenizer) if model.format == "jinja" else "")
        missing = [token for token in dict.fromkeys(made.required_tokens) if token not in control]
    except MftError as error:
        return [fault(str(error).removeprefix(f"{folder}: "), "choose a format that goes with the base, or use model.add_tokens")]
    return [fault(f"the format {_name(model)} needs {', '.join(missing)} as control tokens, and neither the tokenizer nor model.add_tokens "
                  "has them", "add them to model.add_tokens")] if missing else []


def _name(model: ModelConfig) -> str:
    return model.format if isinstance(model.format, str) else str(model.format.get("name", "of the config"))
