"""From the rows of a public schema to messages; one file per schema, listed in registry.py."""
