"""The licence files of a source tree, named where their first lines are those of a well-known licence."""

import re
from pathlib import Path
from typing import Final

NAME: Final = re.compile(r"(?:LICEN[CS]E|COPYING|UNLICENSE)(?:[._-].*)?", re.IGNORECASE)
OTHER_FILE: Final = re.compile(r".*\.(?:py|go|js|ts|java|c|h|cc|cpp|rs|json|xml|html|ya?ml)", re.IGNORECASE)
UNKNOWN: Final = "unknown"
HEAD_CHARACTERS = 4000

RULES: Final = (
    ("Apache-2.0", r"apache license,? version 2\.0"),
    ("AGPL-3.0", r"^\W*gnu affero general public license version 3"),
    ("LGPL-3.0", r"^\W*gnu lesser general public license version 3"),
    ("LGPL-2.1", r"^\W*gnu lesser general public license version 2\.1"),
    ("GPL-3.0", r"^\W*gnu general public license version 3"),
    ("GPL-2.0", r"^\W*gnu general public license version 2"),
    ("MPL-2.0", r"mozilla public license,? (?:version|v\.?) ?2\.0"),
    ("BSL-1.0", r"boost software license - version 1\.0"),
    ("Unlicense", r"this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", r"cc0 1\.0 universal"),
    ("ISC", r"permission to use, copy, modify, and(?:/or)? distribute this software for any purpose with or without fee is hereby granted"),
    ("MIT", r"permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms.*neither the names? of"),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms"),
)
"""SPDX name -> what its text says, in small letters and with single spaces; the first that fits."""


def is_license_file(name: str) -> bool:
    """True for `LICENSE`, `LICENSE.md`, `LICENSE-MIT`, `COPYING`, ...; a source file such as `license.py` is none.

    >>> is_license_file("LICENSE-APACHE"), is_license_file("license.go")
    (True, False)
    """
    return bool(NAME.fullmatch(name)) and not OTHER_FILE.fullmatch(name)


def license_name(path: Path) -> str:
    """The licence's SPDX name, or `unknown`. A hint for a person: what is above or below the text is not looked at.

    The version is that of the text; `-only` or `-or-later` is said in source files, which are not searched.
    """
    text = re.sub(r"\s+", " ", path.read_bytes()[:HEAD_CHARACTERS].decode("utf-8", "replace")).lower()
    if named := re.search(r"spdx-license-identifier: ([\w.+-]+)", text):
        return next((name for name, _ in RULES if name.lower() == named[1]), UNKNOWN)
    plain = re.sub(r"\bapache license version\b", "apache license, version", text)
    return next((name for name, rule in RULES if re.search(rule, plain)), UNKNOWN)
