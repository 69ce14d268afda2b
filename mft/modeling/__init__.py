"""Loading a base in 4 bit or whole, and putting adapters on it."""
