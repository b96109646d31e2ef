"""Small recurrent language models on a CPU: tokenize, train, sample, score."""

__version__ = "0.1.0"
