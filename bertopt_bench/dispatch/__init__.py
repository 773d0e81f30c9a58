"""Where trials run: preloaded parents that fork a child a trial, on this machine."""
