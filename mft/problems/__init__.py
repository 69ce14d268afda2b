"""Benchmark problems as data: HumanEval and its translations, MBPP, and any JSON lines in their layouts."""
