"""Benchmark and profile BERT training: matrices of choices, measured on real text."""
