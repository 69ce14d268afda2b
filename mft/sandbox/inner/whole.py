"""The judge inside the program's own process: for what a separate judge cannot do. Hardened, not proven."""

import json
import os

from .sides import DETAIL, compiled, fresh_module, read_text, run, verdict_of


def whole_side(text: int, verdict: int) -> None:
    """Run a solution and its tests in one namespace, then write the verdict."""
    job = read_text(text)
    write, dumps = os.write, json.dumps
    nonce = job.pop("nonce")
    namespace = vars(fresh_module("solution"))
    try:
        for part in ("solution", "tests", "call"):
            run(compiled(job[part], part), namespace)
        status, detail = "passed", ""
    except BaseException as error:  # noqa: BLE001 - any end but the last line's is a verdict of its own
        status, detail = verdict_of(error, job["tests"])
    write(verdict, dumps({"nonce": nonce, "status": status, "detail": detail[:DETAIL]}).encode())
