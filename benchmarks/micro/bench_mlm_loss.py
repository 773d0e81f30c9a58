"""The MLM loss alone: logits of all slots, or of the masked ones only.

`--dtype bfloat16` is not among the cases that run unasked: where a processor has no 16-bit
arithmetic, logits of all slots take it minutes.
"""

OPERATION = "mlm_loss"
GRID = {
    "implementation": ("dense", "sparse"),
    "seq_len": (32, 64, 128),
    "cache": ("hot", "cold"),
}
ONE_AT_A_TIME = {
    "batch_size": (2, 32),
    "vocabulary_size": (2048, 8192),
    "direction": ("forward",),  # never backward alone: the loss overwrites what it keeps
}


def test_mlm_loss(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
