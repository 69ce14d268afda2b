"""Isolation for programs that a model wrote: which kinds this machine has."""
