"""The problems that a network can be trained for: for each, what its files become, and what its model is."""
