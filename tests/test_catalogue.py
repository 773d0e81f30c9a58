"""The catalogue: what signatures and docstrings say, values checked, entries from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal, Optional, Union

import pytest

from bertopt_bench import catalogue
from bertopt_bench.catalogue import entry as entry_module
from bertopt_bench.catalogue.entry import read_entry
from bertopt_bench.errors import UserError

AXES = [axis for axis in catalogue.AXES if axis not in catalogue.TEXTS]
ALL = [(axis, name) for axis in AXES for name in catalogue.entries(axis)]


# ---- our own entries ----


def test_entries_are_what_the_issue_lists() -> None:
    """Each axis has the entries that were asked for; oracle: the issue's list, written out."""
    listed = {
        "optimizer": "sgd momentum nesterov adam adamw adagrad rmsprop nadam radam adafactor lion "
        "lamb ademamix muon",
        "schedule": "constant exponential step linear cosine polynomial inverse_sqrt one_cycle wsd",
        "regularizer": "none l1 proximal_l1 l2 weight_decay dropout label_smoothing grad_clip ema",
        "precision": "fp32 tf32 bf16 fp16 fp64",
        "device": "cpu cuda",
        "kernel.attention": "default math flash efficient cudnn flex varlen flash_attn",
        "kernel.checkpointing": "off layers",
        "kernel.cuda_graph": "off step",
        "kernel.gelu": "default tanh",
        "kernel.layer_norm": "default liger",
        "kernel.mlm_loss": "sparse dense chunked liger cut_cross_entropy",
        "kernel.optimizer_step": "default loop foreach fused compiled capturable",
        "kernel.compile": "off default reduce_overhead max_autotune",
    }

    assert {axis: " ".join(catalogue.entries(axis)) for axis in AXES} == listed


def test_torch_stays_out() -> None:
    """Reading every axis, its entries and the skip rules imports neither torch nor its like."""
    code = (
        "import sys; from bertopt_bench import catalogue\n"
        f"for axis in {AXES!r}: catalogue.entries(axis)\n"
        "catalogue.skip_rules()\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pandas', 'tokenizers', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("axis", "name"), ALL)
def test_entry_says_what_it_is(axis: str, name: str) -> None:
    """Each entry has a sentence of help, a source (but for doing nothing) and plain options."""
    entry = catalogue.find(axis, name)

    assert entry.help.endswith(".")
    assert entry.source or name in {"none", "off"}
    assert all(option.kind != "any" and not option.required for option in entry.options)
    assert callable(catalogue.resolve(axis, name))


@pytest.mark.parametrize(("axis", "name"), ALL)
def test_defaults_are_canonical(axis: str, name: str) -> None:
    """Filling in defaults twice changes nothing, and survives JSON; oracle: the first filling."""
    entry = catalogue.find(axis, name)
    choice = catalogue.canonical(entry, {})

    options = {key: value for key, value in choice.items() if key != "name" and value is not None}

    assert choice["name"] == name
    assert catalogue.canonical(entry, options) == json.loads(json.dumps(choice))


def test_hidden_keywords_are_accepted_but_no_options() -> None:
    """The keywords foreach and fused are the kernel axis': a user who sets them is sent there."""
    entry = catalogue.find("optimizer", "adamw")

    assert {"foreach", "fused"} <= entry.accepts
    assert {"foreach", "fused"}.isdisjoint(option.name for option in entry.options)
    with pytest.raises(UserError, match=r"set kernel\.optimizer_step"):
        catalogue.canonical(entry, {"fused": True})


# ---- values ----


def test_values_become_what_the_option_is() -> None:
    """A whole number is a float where one is wanted, and defaults are filled in."""
    choice = catalogue.canonical(catalogue.find("optimizer", "adamw"), {"lr": 1, "betas": [0.5, 0]})

    expected = {"name": "adamw", "lr": 1.0, "betas": [0.5, 0.0], "eps": 1e-6, "weight_decay": 0.0}
    assert choice == expected
    assert list(map(type, [choice["lr"], *choice["betas"]])) == [float] * 3


@pytest.mark.parametrize(
    ("axis", "name", "options", "text"),
    [
        ("optimizer", "lion", {"learning_rate": 1.0}, "no option 'learning_rate'. It takes: lr, "),
        ("optimizer", "lion", {"learning_rate": 1.0}, "Did you mean 'lr'?"),
        ("optimizer", "adamw", {"beta": 1.0}, "Did you mean 'betas'?"),
        ("optimizer", "adamw", {"lr": True}, "option 'lr' is True (bool); it must be a number"),
        ("optimizer", "adamw", {"lr": "1e-3"}, "'lr' is '1e-3' (str); it must be a number"),
        ("optimizer", "adamw", {"betas": [0.9]}, "'betas' has 1 values; it must have 2"),
        ("optimizer", "adamw", {"betas": 0.9}, "'betas' is 0.9 (float); it must be a list"),
        ("optimizer", "muon", {"ns_steps": 5.0}, "'ns_steps' is 5.0 (float); it must be a whole"),
        ("optimizer", "muon", {"nesterov": 1}, "'nesterov' is 1 (int); it must be true or false"),
        ("schedule", "wsd", {"shape": "squrt"}, "one of 'linear', 'sqrt', 'cosine'. Did you mean"),
        ("regularizer", "none", {"rate": 1.0}, "It takes no options."),
    ],
)
def test_wrong_options_are_refused(
    axis: str, name: str, options: dict[str, Any], text: str
) -> None:
    """The error says what came, what is allowed, and the nearest name."""
    with pytest.raises(UserError) as caught:
        catalogue.canonical(catalogue.find(axis, name), options)

    assert text in str(caught.value)
    assert f"{axis} '{name}'" in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "name", "options", "words"),
    [
        ("optimizer", "adamw", {"lr": -1e-3}, "not be negative"),
        ("optimizer", "adam", {"betas": [1.0, 0.9]}, "from 0 to below 1"),
        ("optimizer", "lion", {"betas": [0.9, -0.1]}, "from 0 to below 1"),
        ("optimizer", "muon", {"momentum": 1.0}, "from 0 to below 1"),
        ("optimizer", "rmsprop", {"alpha": -0.1}, "from 0 to below 1"),
        ("optimizer", "adagrad", {"initial_accumulator_value": -1.0}, "not be negative"),
        ("optimizer", "nadam", {"momentum_decay": -1.0}, "not be negative"),
        ("optimizer", "adafactor", {"smallest_scale": -1.0}, "not be negative"),
        ("optimizer", "adafactor", {"clip": 0.5}, "at least 1"),
        ("device", "cpu", {"threads": -1}, "not be negative"),
        ("device", "cuda", {"index": -1}, "not be negative"),
    ],
)
def test_numbers_that_only_a_trial_would_refuse_are_refused_early(
    axis: str, name: str, options: dict[str, Any], words: str
) -> None:
    """Oracle: the entry itself: what torch, a package or the device refuses is refused here too.

    torch takes a momentum and an alpha of 1 and more, with which nothing converges.
    """
    entry = catalogue.find(axis, name)
    ((option, value),) = options.items()

    with pytest.raises(UserError, match=f"option '{option}' is") as caught:
        catalogue.canonical(entry, options)
    assert words in str(caught.value)
    if value not in ([1.0, 0.9], 1.0):
        import torch

        groups = [{"params": [torch.nn.Parameter(torch.ones(2, 2))], "role": "matrix"}]
        with pytest.raises((ValueError, TypeError)):
            catalogue.resolve(axis, name)(*[groups] * (axis == "optimizer"), **options)


def test_limits_are_of_our_own_entries() -> None:
    """A user's optimizer may mean something else by the name of an option of ours."""
    from dataclasses import replace

    entry = replace(catalogue.find("optimizer", "momentum"), target="mine:momentum")

    assert catalogue.canonical(entry, {"momentum": 1.5})["momentum"] == 1.5
    with pytest.raises(UserError, match="must not be negative"):
        catalogue.canonical(entry, {"lr": -1.0})


def test_an_optimizers_step_is_none_of_a_users_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention and compile take `module:function`, a step does not, installed or named."""
    monkeypatch.setattr(catalogue.outside, "entry_points", lambda _: {"quick": "mine:step"})

    assert set(catalogue.entries("kernel.optimizer_step")).isdisjoint({"quick"})
    assert "quick" in catalogue.entries("kernel.compile")
    for name in ("mine:step", "quick"):
        with pytest.raises(UserError, match="a step belongs to its optimizer"):
            catalogue.find("kernel.optimizer_step", name)


@pytest.mark.parametrize(
    ("axis", "name", "text"),
    [
        ("optimiser", "adamw", "no axis 'optimiser'. Axes: optimizer, "),
        ("optimizer", "adamv", "no optimizer 'adamv'. Entries: sgd, "),
        ("schedule", "cosin", "Did you mean 'cosine'?"),
        ("schedule", "cosin", "One of your own is written 'module:Name'."),
        ("schedule", "a b:c", "no schedule 'a b:c'"),
        ("schedule", "module:", "no schedule 'module:'"),
    ],
)
def test_unknown_names_are_refused(axis: str, name: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        catalogue.find(axis, name)

    assert text in str(caught.value)


def test_validate_calls_what_needs_no_torch() -> None:
    """Values that only an entry itself can judge are refused before anything runs."""
    cell: dict[str, Any] = {
        "workload": {"steps": 20},
        "schedule": {"name": "linear", "warmup_steps": 30},
        "regularizer": [{"name": "none"}],
        "precision": {"name": "fp32"},
        "kernel": {"attention": {"name": "math"}},
    }

    with pytest.raises(UserError, match="only 20 steps"):
        catalogue.validate(cell)
    catalogue.validate(cell | {"schedule": {"name": "linear", "warmup_steps": 20}})
    with pytest.raises(UserError, match="'dropout' is 2"):
        catalogue.validate(cell | {"regularizer": [{"name": "dropout", "dropout": 2.0}]})


# ---- signatures ----


def test_kinds_are_read_from_annotations_and_defaults() -> None:
    """Texts, types, unions and bare defaults give the kind; oracle: written out."""

    def entry(
        groups: Any,
        lr: float,
        union: "float | Any" = 1,  # noqa: UP037 - users write it so
        *,
        old: Optional[int] = None,  # noqa: UP045 - users write it so
        older: Union[Any, str] = "x",  # noqa: UP007 - users write it so
        pair: tuple[float, float] = (0.9, 0.99),
        many: tuple[int, ...] = (1,),
        words: Literal["a", "b"] = "a",
        bare=0.5,
        whole=1,
        flag=False,
        function=print,
        **others: Any,
    ) -> None:
        """Do something."""

    found = read_entry("optimizer", "x", "m:x", entry)

    assert {option.name: option.kind for option in found.options} == {
        "lr": "float",
        "union": "float",
        "old": "int",
        "older": "str",
        "pair": "tuple",
        "many": "tuple",
        "words": "str",
        "bare": "float",
        "whole": "any",
        "flag": "bool",
    }
    assert [option.name for option in found.options if option.required] == ["lr"]
    assert next(o.items for o in found.options if o.name == "pair") == ("float", "float")
    assert next(o.choices for o in found.options if o.name == "words") == ("a", "b")
    assert found.accepts == {option.name for option in found.options} | {"function"}
    assert found.open
    choice = catalogue.canonical(found, {"lr": 1, "whole": 0.5, "another": 3})
    assert (choice["lr"], choice["union"], choice["whole"], choice["another"]) == (1.0, 1.0, 0.5, 3)
    with pytest.raises(UserError, match="needs the option 'lr'"):
        catalogue.canonical(found, {})


def test_a_kernels_options_are_keyword_only() -> None:
    """Of a user's attention function the operation's own arguments are no options."""

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, *, window: int = 8) -> None:
        """Attend to what is near."""

    found = read_entry("kernel.attention", "x", "m:x", attend)

    assert [option.name for option in found.options] == ["window"]


def test_a_layer_norms_own_arguments_are_no_options() -> None:
    """Oracle: torch's signature of functional.layer_norm, plus one option of the user's."""

    def norm(hidden, normalized_shape, weight=None, bias=None, eps=1e-5, *, rows: int = 4) -> None:
        """Norm some rows at a time."""

    found = read_entry("kernel.layer_norm", "x", "m:x", norm)

    assert [option.name for option in found.options] == ["rows"]


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (float, ("float", None, ())),
        (int | None, ("int", None, ())),
        (Optional[bool], ("bool", None, ())),  # noqa: UP045 - users write it so
        (tuple[float, int], ("tuple", None, ("float", "int"))),
        (tuple[float, ...], ("tuple", None, ())),
        (Literal[1, 2], ("int", (1, 2), ())),
        ("np.ndarray", ("any", None, ())),
        ("no annotation", ("any", None, ())),
        (Any, ("any", None, ())),
    ],
)
def test_annotations_may_be_types_or_text(annotation: Any, kind: tuple[Any, ...]) -> None:
    """A module without postponed annotations is read alike; oracle: written out."""
    assert entry_module._kind(annotation) == kind


def test_docstrings_give_notes() -> None:
    """Notes run over several lines and end at an empty one; oracle: written out."""

    def entry() -> None:
        """Do it.

        More text: not a note.

        Source: a paper,
            its second line.
        Search: lr log 1..2.

        After all.
        """

    found = read_entry("regularizer", "x", "m:x", entry)

    assert found.help == "Do it."
    assert found.notes == {"Source": "a paper, its second line.", "Search": "lr log 1..2."}


def test_an_option_that_came_later_is_said_only_where_it_is_chosen() -> None:
    """Oracle: muon as it was published, and with the option."""
    entry = catalogue.find("optimizer", "muon")
    silent = catalogue.canonical(entry, {})

    assert "ns_precision" not in silent
    assert catalogue.canonical(entry, {"ns_precision": "bf16"}) == silent
    assert catalogue.canonical(entry, {"ns_precision": "fp32"})["ns_precision"] == "fp32"
