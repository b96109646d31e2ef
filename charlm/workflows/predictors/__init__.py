"""What models predict, by task: labels of texts, tags of tokens, targets of sources."""
