"""The gate of a continuous integration: from a policy to an exit code with a stated error rate."""
