"""Which functions are long enough, and short enough, to make a row: the same limits for every language."""

MIN_BODY_LINES = 2
"""A body with fewer lines that are not blank is not used: accessors and delegates teach little and repeat much."""

MAX_LINES = 100
"""A function with more lines, its documentation included, is not used."""

MIN_DOCSTRING_CHARACTERS = 20
"""A shorter docstring says no more than the name; it neither asks for code (text2code) nor is worth learning (docstring)."""

MIN_COMPLETION_LINES = 4
"""A body with fewer lines that are not blank is not cut in two."""
