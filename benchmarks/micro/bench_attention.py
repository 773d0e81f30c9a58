"""Attention alone: `pytest benchmarks/micro -k attention --seq-len 128,512 --padding 0,0.5`."""

OPERATION = "attention"
GRID = {
    "implementation": ("math", "flash"),
    "seq_len": (64, 128, 256, 512),
    "cache": ("hot", "cold"),
}
ONE_AT_A_TIME = {
    "batch_size": (2, 32),
    "heads": (2, 8),
    "head_size": (32, 128),
    "padding": (0.25, 0.5),
    "direction": ("forward", "backward"),
    "dtype": ("bfloat16",),
}


def test_attention(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
