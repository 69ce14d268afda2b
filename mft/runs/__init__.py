"""A project: the stages of a config, run in one process, each skipped when nothing it depends on has changed."""
