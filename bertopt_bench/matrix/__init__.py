"""What to run: a TOML file becomes cells, and cells become an ordered plan of trials."""
