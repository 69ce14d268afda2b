"""What runs in a process of its own, as it imports torch, may crash the interpreter, or may hang."""
