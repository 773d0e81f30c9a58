"""One cell, live: assemble it, burn it in, restore it, train it and report what was seen."""
