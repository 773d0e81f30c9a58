"""Layer norm alone: `pytest benchmarks/micro -k layer_norm --hidden-size 768,1024`."""

OPERATION = "layer_norm"
GRID = {
    "implementation": ("default", "composed"),
    "hidden_size": (128, 256, 512),
    "cache": ("hot", "cold"),
}
ONE_AT_A_TIME = {
    "batch_size": (2, 32),
    "direction": ("forward", "backward"),
    "dtype": ("bfloat16",),
}


def test_layer_norm(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
