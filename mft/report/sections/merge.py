"""The merge check: does the merged model equal base plus adapter."""

import json
from typing import Any

from mft.report.markup import Html, facts, notice, section
from mft.report.records import MergeCheck
from mft.report.units import MISSING, count, decimal, duration, percent, size


def merge_section(merge: MergeCheck, anchor: str, title: str) -> Html:
    """The largest deviation against its tolerance, agreement of the logits where measured, and the cost."""
    lead = "The adapter was added into the base weights; the check holds the result against base + adapter."
    return section(anchor, title, lead, _judgement(merge), facts([
        ("tensors written", count(merge.tensors)), ("of them changed by the adapter", count(merge.merged)),
        ("largest absolute difference", None if merge.max_abs_diff is None else decimal(merge.max_abs_diff)),
        ("tolerance", None if merge.tolerance is None else decimal(merge.tolerance)),
        ("compared with", _words(merge.reference)), ("check", _words(merge.verify)),
        ("KL divergence (nats)", None if merge.kl is None else decimal(merge.kl)),
        ("same most likely token", None if merge.top1_agreement is None else percent(merge.top1_agreement)),
        ("peak memory (RSS)", None if merge.peak_rss_bytes is None else size(merge.peak_rss_bytes)),
        ("anonymous memory", None if merge.anonymous_bytes is None else size(merge.anonymous_bytes)),
        ("time", None if merge.seconds is None else duration(merge.seconds)),
        *((f"of it {name}", duration(seconds)) for name, seconds in merge.stage_seconds.items())]))


def merge_holds(merge: MergeCheck) -> bool | None:
    """True where the difference is within the tolerance, None where it was not measured."""
    if merge.max_abs_diff is None or merge.tolerance is None:
        return None
    return merge.max_abs_diff <= merge.tolerance


def _judgement(merge: MergeCheck) -> Html:
    holds = merge_holds(merge)
    if holds is None:
        return notice("plain", "Not checked.", " The merge was written without a comparison.")
    text = f" Largest absolute difference {decimal(merge.max_abs_diff)}, tolerance {decimal(merge.tolerance)}."
    if not holds:
        return notice("bad", "Merge check failed.", text)
    return notice("good", "The merged model agrees with base + adapter.", text)


def _words(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, ensure_ascii=False) if value != [] else MISSING
