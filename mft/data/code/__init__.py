"""Functions of many languages out of a source tree: which files count, what is cut from them, and why the rest is left out."""
