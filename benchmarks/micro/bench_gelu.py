"""GELU alone: `pytest benchmarks/micro -k gelu --implementation default,my_module:my_gelu`."""

OPERATION = "gelu"
GRID = {
    "implementation": ("default", "composed"),
    "hidden_size": (512, 1024, 2048),
    "cache": ("hot", "cold"),
}
ONE_AT_A_TIME = {
    "batch_size": (2, 32),
    "direction": ("forward", "backward"),
    "dtype": ("bfloat16",),
}


def test_gelu(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
