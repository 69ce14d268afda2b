"""A Python module with one function that has a docstring, an example and a body long enough for every task made of code."""


def module_text(number: int) -> str:
    """Its source; another number gives another function."""
    return f'''\
def f{number}(x):
    """Add {number} and more to x.

    >>> f{number}(1)
    """
    x += {number}
    x += {number} * 2
    x += {number} * 3
    return x
'''
