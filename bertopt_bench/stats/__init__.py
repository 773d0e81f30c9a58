"""What the records mean: summaries with their n and spread, and effects of axes."""
