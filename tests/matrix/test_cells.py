"""Cells: counts, names, exclusions, inclusions, skips."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_matrices import expand, load

from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix import cells, spec
from bertopt_bench.matrix.choices import DEFAULTS
from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.matrix.labels import UNSAID, choices, drawn_from

if TYPE_CHECKING:
    import random


CAPABILITIES: dict[str, Any] = {
    "torch": "2.13.0",
    "cuda": {"count": 0, "names": [], "capability": []},
    "packages": {"pytorch_optimizer": None},
    "compiler": True,
}


def some_of(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique_by=json.dumps)


DOCUMENTS = st.fixed_dictionaries(
    {
        "workload": st.fixed_dictionaries(
            {},
            optional={
                "steps": some_of(10, 20, 30),
                "seq_len": some_of(16, 32),
                "model": some_of("tiny", "mini"),
                "mask_rate": some_of(0.15, 0.3),
            },
        ),
        "axes": st.fixed_dictionaries(
            {},
            optional={
                "optimizer": some_of(
                    "sgd",
                    {"name": "adamw", "lr": [0.001, 0.0003]},
                    {"name": "adamw", "lr": 0.1, "betas": [[0.9, 0.99], [0.8, 0.9]]},
                    {"name": "lion", "betas": [0.9, 0.99]},
                ),
                "schedule": some_of("constant", "cosine", {"name": "linear", "end": [0.0, 0.1]}),
                "regularizer": some_of(
                    "none", ["weight_decay", "grad_clip"], ["grad_clip", "weight_decay"],
                    [{"name": "l1", "l1": [0.1, 0.2]}, "ema"],
                ),
                "kernel": st.fixed_dictionaries(
                    {}, optional={"attention": some_of("math", "flash", "default")}
                ),
            },
        ),
        "seeds": some_of(1, 2, 3),
    }
)  # fmt: skip
EXPANDED = {"lr": 2, "end": 2, "l1": 2}


def levels(value: Any) -> int:
    """Count by hand what one written level stands for: lists of options multiply."""
    if isinstance(value, list):
        return math.prod(map(levels, value))
    if not isinstance(value, dict):
        return 1
    count = 1
    for option, part in value.items():
        if isinstance(part, list) and (option != "betas" or isinstance(part[0], list)):
            count *= len(part)
    return count


def product_of(document: dict[str, Any]) -> int:
    axes = {**document["axes"], **document["axes"].get("kernel", {})}
    axes.pop("kernel", None)
    counts = [sum(map(levels, axis)) for axis in axes.values()]
    return math.prod([*counts, *map(len, document["workload"].values())])


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_there_are_as_many_cells_as_the_product_and_no_two_ids_agree(
    document: dict[str, Any],
) -> None:
    """Oracle: the product of the levels, counted from the document by itself."""
    found = expand(document)

    assert len(found) == product_of(document)
    assert len({cell.id for cell in found}) == len(found)
    assert len({cell.label for cell in found}) == len(found)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_ids_and_digest_are_stable_under_reordering(
    document: dict[str, Any], draw: random.Random
) -> None:
    """Oracle: the same document with its keys, levels and options in another order."""

    def reordered(table: Any, *, lists: bool) -> Any:
        if isinstance(table, dict):
            items = [(key, reordered(value, lists=lists)) for key, value in table.items()]
            return dict(draw.sample(items, len(items)))
        return draw.sample(table, len(table)) if lists and isinstance(table, list) else table

    other = reordered(document, lists=True)

    assert {cell.id for cell in expand(other)} == {cell.id for cell in expand(document)}
    assert load(other).digest == load(document).digest


def test_an_id_is_the_hash_of_the_canonical_json() -> None:
    """Oracle: sha256 of the sorted, blank-free JSON by hashlib, and one id kept from the start."""
    import hashlib

    (cell,) = expand({"axes": {"optimizer": {"name": "sgd", "lr": 1}}})
    text = json.dumps(cell.content, sort_keys=True, separators=(",", ":"))

    assert cell.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert cell.content["optimizer"]["lr"] == 1.0
    assert cell_id({"b": [1.0, "x"], "a": True}) == "142aedc13cf7"


ROOT = Path(__file__).parents[2]


def test_ids_are_those_that_published_results_carry() -> None:
    """Oracle: records of `results/optimizers`, and the quick start's first id of version 0.1."""
    published = {
        json.loads(line)["cell_id"]
        for line in (ROOT / "results/optimizers/records.jsonl").read_text().splitlines()
    }
    found = {
        name: [cell.id for cell in cells.expand(spec.load(ROOT / f"benchmarks/{name}.toml"))]
        for name in ("optimizers", "quickstart")
    }

    assert set(found["optimizers"]) == published
    assert found["quickstart"][0] == "a2d944f71161"


def test_an_axis_that_came_later_is_said_only_where_it_is_chosen() -> None:
    """Oracle: the ids without the axis; labels and choices still tell both levels apart."""
    chosen = "torch.nn.functional:layer_norm"
    (silent,) = expand({"seeds": [1]})
    usual, own = expand({"axes": {"kernel": {"layer_norm": ["default", chosen]}}})

    assert usual.id == silent.id != own.id
    assert "layer_norm" not in usual.content["kernel"]
    assert own.content["kernel"]["layer_norm"] == {"name": chosen}
    assert [usual.label, own.label] == ["default", chosen]
    assert choices(usual.content)["kernel.layer_norm"] == {"name": "default"}


def test_a_layout_is_said_only_where_it_is_not_padded() -> None:
    """Oracle: the id without the key; labels still tell both layouts apart."""
    (silent,) = expand({"seeds": [1]})
    padded, packed = expand({"workload": {"layout": ["padded", "packed"]}})

    assert padded.id == silent.id != packed.id
    assert "layout" not in padded.content["workload"]
    assert packed.content["workload"]["layout"] == "packed"
    assert [padded.label, packed.label] == ["padded", "packed"]
    assert drawn_from(packed.content["workload"]) == padded.content["workload"]
    rule = {"layout": "padded", "reason": "why not"}
    left = expand({"workload": {"layout": ["padded", "packed"]}, "exclude": [rule]})
    assert [cell.label for cell in left if cell.skip] == ["padded"]
    with pytest.raises(MatrixError, match="Did you mean 'packed'"):
        expand({"workload": {"layout": "paked"}})


@pytest.mark.parametrize("axis", UNSAID)
def test_later_axes_leave_every_older_cell_as_it_was(axis: str) -> None:
    """Oracle: the cell of a silent matrix, and that the default is what matrices mean."""
    operation, usual = axis.partition(".")[2], UNSAID[axis]["name"]
    (silent,) = expand({"seeds": [1]})
    (said,) = expand({"axes": {"kernel": {operation: usual}}})

    assert said.id == silent.id
    assert operation not in said.content["kernel"]
    assert DEFAULTS[axis] == usual


def test_an_exclusion_may_name_an_unsaid_choice() -> None:
    """Oracle: the one cell with the default and bf16 is left out."""
    axes = {
        "precision": ["fp32", "bf16"],
        "kernel": {"layer_norm": ["default", "torch.nn.functional:layer_norm"]},
    }
    rule = {"layer_norm": "default", "precision": "bf16", "reason": "why not"}
    found = expand({"axes": axes, "exclude": [rule]})

    assert [cell.label for cell in found if cell.skip] == ["bf16 · default"]


def test_whole_and_decimal_numbers_name_one_cell() -> None:
    """Oracle: 1 and 1.0 are one learning rate."""
    one, other = (expand({"axes": {"optimizer": {"name": "sgd", "lr": lr}}})[0] for lr in (1, 1.0))

    assert one.id == other.id


def test_what_stands_for_every_default_is_the_same_cell() -> None:
    """Oracle: a default written out chooses nothing else."""
    silent = expand({"seeds": [1]})
    loud = expand(
        {
            "workload": {"steps": 120, "model": "tiny", "lower_case": True},
            "axes": {"optimizer": "adamw", "kernel": {"attention": "default"}},
        }
    )

    assert [cell.id for cell in silent] == [cell.id for cell in loud]


def test_sizes_of_a_model_expand_and_fill_in_what_has_a_default() -> None:
    """Oracle: two layer counts are two cells, with the 512 positions of BERT."""
    sizes = {"hidden": 32, "layers": [1, 2], "heads": 2, "intermediate": 64}
    found = expand({"workload": {"model": [sizes]}})

    assert [cell.content["workload"]["model"]["layers"] for cell in found] == [1, 2]
    assert {cell.content["workload"]["model"]["positions"] for cell in found} == {512}
    assert [cell.label for cell in found] == ["L1 H32 A2 I64", "L2 H32 A2 I64"]


def test_labels_say_what_varies_and_nothing_else() -> None:
    """Oracle: the words of the contract: name, and the options that vary for this name."""
    found = expand(
        {
            "workload": {"steps": [10, 20]},
            "axes": {
                "optimizer": ["sgd", {"name": "adamw", "lr": [0.001, 0.01]}],
                "regularizer": ["none", ["l1", "ema"]],
            },
        }
    )

    labels = {cell.label for cell in found}
    assert "sgd · none · steps=10" in labels
    assert "adamw lr=0.01 · l1 + ema · steps=20" in labels


def test_an_exclusion_needs_all_its_conditions_and_keeps_the_cell_with_its_reason() -> None:
    """Oracle: of 2 x 2 x 2 cells, those with sgd or lion's one lr, and bf16, are left out."""
    found = expand(
        {
            "workload": {"steps": [10, 20]},
            "axes": {
                "optimizer": ["sgd", {"name": "lion", "lr": [0.1, 0.2]}],
                "precision": ["fp32", "bf16"],
                "regularizer": ["none", ["l1", "ema"]],
            },
            "exclude": [
                {"optimizer": ["sgd", {"lr": 0.2}], "precision": "bf16", "reason": "why not"},
                {"regularizer": "ema", "steps": 20, "reason": "too long"},
            ],
        }
    )

    def expected(content: dict[str, Any]) -> str | None:
        optimizer = content["optimizer"]
        if content["precision"]["name"] == "bf16" and (
            optimizer["name"] == "sgd" or optimizer["lr"] == 0.2
        ):
            return "excluded: why not"
        averaged = any(part["name"] == "ema" for part in content["regularizer"])
        return "excluded: too long" if averaged and content["workload"]["steps"] == 20 else None

    assert len(found) == 2 * 3 * 2 * 2
    assert [cell.skip for cell in found] == [expected(dict(cell.content)) for cell in found]


def test_kernels_are_excluded_by_their_operation_alone_or_in_a_table() -> None:
    """Oracle: both ways of writing leave out the same cells."""
    axes = {"kernel": {"attention": ["math", "flash"], "compile": ["off", "default"]}}
    flat = {"attention": "math", "compile": "default", "reason": "r"}
    nested = {"kernel": {"attention": "math", "compile": "default"}, "reason": "r"}
    skips = [[c.skip for c in expand({"axes": axes, "exclude": [one]})] for one in (flat, nested)]

    assert skips[0] == skips[1]
    assert Counter(skips[0]) == {None: 3, "excluded: r": 1}


def test_an_include_takes_what_the_matrix_fixes_and_defaults_for_what_it_varies() -> None:
    """Oracle: by hand: steps is fixed at 10, the optimizer varies, the include asks for lion."""
    document = {
        "workload": {"steps": 10, "seq_len": [16, 32]},
        "axes": {"optimizer": ["sgd", "adam"], "schedule": "cosine"},
        "include": [{"regularizer": ["l1", "ema"]}, {"optimizer": "lion", "seq_len": 16}],
    }
    found = expand(document)
    extra = [cell.content for cell in found[4:]]

    assert [len(found), load(document).cell_count()] == [7, 7]
    assert [c["regularizer"][0]["name"] for c in extra] == ["l1", "ema", "none"]
    assert [c["optimizer"]["name"] for c in extra] == ["adamw", "adamw", "lion"]
    assert [c["workload"]["seq_len"] for c in extra] == [64, 64, 16]
    assert {c["workload"]["steps"] for c in extra} == {10}
    assert {c["schedule"]["name"] for c in extra} == {"cosine"}


def test_an_include_may_lift_an_exclusion_but_not_repeat_a_cell() -> None:
    """Oracle: the one cell asked for both ways; the error names the include."""
    axes = {"optimizer": ["sgd", "adam"], "precision": ["fp32", "bf16"]}
    wanted = {"optimizer": "sgd", "precision": "bf16"}
    excluded = {"precision": "bf16", "reason": "slow"}
    found = expand({"axes": axes, "exclude": [excluded], "include": [wanted]})

    assert Counter(cell.skip for cell in found) == {None: 3, "excluded: slow": 1}
    with pytest.raises(MatrixError, match=r"include\[0\]: repeats"):
        expand({"axes": axes, "include": [wanted]})


def test_values_that_an_entry_refuses_are_refused_before_anything_runs() -> None:
    """Oracle: a dropout of 1.5 is no probability; excluded cells are not asked."""
    document = {"axes": {"regularizer": {"name": "dropout", "dropout": 1.5}}}

    with pytest.raises(MatrixError, match="dropout"):
        expand(document)
    excluded = {**document, "exclude": [{"regularizer": "dropout", "reason": "r"}]}
    assert [cell.skip for cell in expand(excluded)] == ["excluded: r"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 100))
def test_evaluations_stand_at_the_start_at_each_multiple_and_at_the_end(
    steps: int, every: int
) -> None:
    """Oracle: the definition, asked of every update."""
    due = [step for step in range(steps + 1) if step % every == 0 or step == steps]

    assert cells.evaluation_steps(steps, every) == due


def test_cells_that_cannot_run_here_say_why_and_may_be_allowed() -> None:
    """Oracle: no GPU and no optimizer package in these capabilities; fp16 on a CPU is a rule."""
    document = {
        "axes": {
            "optimizer": ["sgd", "lion"],
            "precision": ["fp32", "fp16"],
            "device": ["cpu", "cuda"],
        }
    }
    found = cells.expand(load(document), CAPABILITIES)
    by_names = {
        tuple(cell.content[axis]["name"] for axis in ("optimizer", "precision", "device")): cell
        for cell in found
    }
    allowed = cells.expand(load({**document, "allow": ["fp16_on_cpu"]}), CAPABILITIES)

    assert by_names["sgd", "fp32", "cpu"].skip is None
    assert "cuda" in str(by_names["sgd", "fp32", "cuda"].skip)
    assert "pip install" in str(by_names["lion", "fp32", "cpu"].skip)
    assert 'allow = ["fp16_on_cpu"]' in str(by_names["sgd", "fp16", "cpu"].skip)
    assert sum(cell.skip is None for cell in allowed) == sum(c.skip is None for c in found) + 1


def test_slower_precisions_are_skipped_only_where_the_matrix_asks() -> None:
    """Oracle: a measured ratio of 1.5 against fp32."""
    known = {**CAPABILITIES, "precision_ratio": {"cpu": {"bf16": 1.5, "fp32": 1.0}}}
    document = {"axes": {"precision": ["fp32", "bf16"]}}
    asked = cells.expand(load({**document, "skip_slower_precisions": True}), known)

    assert [cell.skip for cell in cells.expand(load(document), known)] == [None, None]
    assert asked[0].skip is None
    assert "1.50" in str(asked[1].skip)


def test_source_files_of_a_users_own_entry_are_part_of_the_cell_not_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: hashlib over the file, before and after an edit that changes no option."""
    import hashlib

    monkeypatch.chdir(tmp_path)
    source = tmp_path / "mine_for_cells.py"
    source.write_text("def half(total_steps, *, factor: float = 0.5):\n    return lambda s: 1.0\n")
    document = {"axes": {"schedule": "mine_for_cells:half"}}
    (before,) = expand(document)
    source.write_text(source.read_text() + "# edited\n")
    (after,) = expand(document)

    assert after.id == before.id
    assert before.content["schedule"] == {"name": "mine_for_cells:half", "factor": 0.5}
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    assert after.outside == {"mine_for_cells.py": expected}
    assert before.outside != after.outside
