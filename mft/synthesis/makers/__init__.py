"""Steps in which a language model writes: instructions, harder instructions, answers, tests, translations."""
