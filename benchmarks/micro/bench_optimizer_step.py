"""AdamW's step alone, on one flat tensor, BERT's real mix of tensors, or many small ones.

`--hidden-size 768` has the 110 million parameters of BERT-base.
"""

OPERATION = "optimizer_step"
GRID = {
    "implementation": ("loop", "foreach", "fused"),
    "mix": ("flat", "bert", "small"),
    "cache": ("hot", "cold"),
}
ONE_AT_A_TIME = {"hidden_size": (64, 256), "dtype": ("bfloat16",)}


def test_optimizer_step(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
