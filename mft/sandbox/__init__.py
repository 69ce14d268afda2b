"""Isolation for programs that a model wrote: which kinds this machine has, and a judge that runs programs in them."""
