"""Steps that judge what was written: compilers, tests, mutants, agreement of samples, difficulty."""
