"""The steps that look at one row, or choose among rows: one file a step, listed in mft/data/step_registry.py."""
