"""What each kind of stage does, one file a kind; mft/runs/kinds/registry.py lists them."""
