"""Merge an adapter into its base in bounded memory, and check the result.

`merge` is also the name of the module that holds it, so it is bound here at once (that module imports no torch):
otherwise `mft.merging.merge` would be the function or the module, by what was imported first.
"""

from mft.merging.merge import merge
from mft.merging.result import MergeResult

__all__ = ["MergeResult", "merge"]
