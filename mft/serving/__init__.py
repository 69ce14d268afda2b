"""Use a model: a chat in the terminal, a server for any OpenAI client."""
