"""What is shown: one offline page and a Markdown summary, from the tables alone."""
