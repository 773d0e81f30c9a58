"""The workload of tests that run the real command: a very small model on real text."""

SMALL = """
[workload]
model = {hidden = 16, layers = 1, heads = 2, intermediate = 32}
vocabulary_size = 512
seq_len = 16
batch_size = 4
steps = 6
evaluate_every = 3
evaluation_batches = 1
"""
