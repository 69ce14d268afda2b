"""`mft data formats`: which prompt formats go with a tokenizer."""

from mft.cli.data_options import TokenizerOption
from mft.cli.outcome import Outcome, Table


def formats(tokenizer: TokenizerOption) -> Outcome:
    """Every prompt format beside a tokenizer: its BOS, its end mark, where it stops, or why it is refused."""
    from mft.runs.inputs import resolve_tokenizer
    from mft.tokenization.compatibility import fits
    from mft.tokenization.load import load_tokenizer

    found = fits(load_tokenizer(resolve_tokenizer(tokenizer)))
    rows = [[fit.name, "no" if fit.refused else "yes", fit.bos, fit.end, " ".join([*fit.stop_tokens, *fit.stop_strings])] for fit in found]
    refusals = [f"{fit.name}: {fit.refused}" for fit in found if fit.refused]
    table = Table("", ["format", "goes", "BOS", "end mark", "stops at"], rows)
    return Outcome({"formats": [fit._asdict() for fit in found]}, [table, *refusals])
