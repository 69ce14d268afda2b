"""Scores that carry their protocol."""
