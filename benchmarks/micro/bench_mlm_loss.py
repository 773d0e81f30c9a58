"""The MLM loss alone: logits of all slots, or of the masked ones only."""

OPERATION = "mlm_loss"
GRID = {
    "implementation": ("dense", "sparse"),
    "seq_len": (32, 64, 128),
    "cache": ("hot", "cold"),
}


def test_mlm_loss(case, measure) -> None:
    """Time one case; how exact it is was checked before."""
    measure(case)
