"""How the tasks of a recipe are mixed: how many rows each gives, which ones, in which order."""
