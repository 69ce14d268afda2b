"""Text from a model: batches of prompts, stopping, one answer to a conversation."""
