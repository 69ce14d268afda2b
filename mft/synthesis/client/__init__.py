"""A language model behind a URL, or in this process: asked many times at once, each answer paid once and kept."""
