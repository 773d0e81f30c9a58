"""What is trained: a BERT, its text, its masks, and the formulas that say what a step costs."""
