"""How well a model predicts held-out answers."""
