"""Instruction data that a language model makes, and that compilers and tests check."""
