"""Matrix files: what is refused, and what stands in the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bertopt_bench.errors import MatrixError, UserError
from bertopt_bench.matrix import spec

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.matrix.spec import Matrix


def load(tmp_path: Path, text: str, *overrides: str) -> Matrix:
    file = tmp_path / "some.toml"
    file.write_text(text)
    return spec.load(file, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> MatrixError:
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, text, *overrides)
    return caught.value


def test_a_silent_matrix_is_the_contracts_default_cell(tmp_path: Path) -> None:
    """Oracle: the canonical cell and the defaults as the contract between the rooms lists them."""
    matrix = load(tmp_path, 'description = "nothing said"')

    assert matrix.name == "some"
    assert (matrix.seeds, matrix.replicates, matrix.allow) == ((1,), 1, ())
    assert matrix.timing == {
        "steps": None,
        "burn_in_steps": 3,
        "timeout_seconds": 3600.0,
        "phase_steps": 3,
    }
    single = {name: levels[0] for name, levels in matrix.levels.items() if len(levels) == 1}
    assert single.keys() == matrix.levels.keys()
    assert single["workload.mask_rate"] == 0.15
    assert single["workload.steps"] == 120
    assert single["optimizer"]["name"] == "adamw"
    assert single["regularizer"] == [{"name": "none"}]
    assert single["kernel.compile"]["name"] == "off"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "", "is empty"),
        ("# only a comment", "", "is empty"),
        ("x = [", "", "is no TOML"),
        ("seeds = [" + "9" * 5000 + "]", "", "is no TOML"),
        ("[" * 5000, "", "is no TOML"),
        ("axis = 1", "axis", "Did you mean 'axes'"),
        ("name = 3", "name", "a text"),
        ("name = '../up'", "name", "names a folder"),
        ("name = ''", "name", "names a folder"),
        ("description = 1", "description", "a text"),
        ("seeds = 1", "seeds", "a list"),
        ("seeds = []", "seeds", "empty list"),
        ("seeds = [1, true]", "seeds[1]", "whole number of at least 0"),
        ("seeds = [-1]", "seeds[0]", "at least 0"),
        ("seeds = [1.5]", "seeds[0]", "whole number"),
        ("seeds = [1, 2, 1]", "seeds[2]", "repeats seeds[0]"),
        ("replicates = 0", "replicates", "at least 1"),
        ("replicates = '2'", "replicates", "whole number"),
        ("skip_slower_precisions = 1", "skip_slower_precisions", "true or false"),
        ("allow = 'fp16_on_cpu'", "allow", "a list"),
        ("allow = [1]", "allow[0]", "name of a skip rule"),
        ("allow = ['fp16_on_gpu']", "allow[0]", "Did you mean 'fp16_on_cpu'"),
        ("allow = ['no_cuda']", "allow[0]", "cannot be allowed"),
        ("workload = 1", "workload", "a table"),
        ("timing = 1", "timing", "a table"),
        ("axes = 1", "axes", "a table"),
        ("exclude = 1", "exclude", "a list"),
        ("include = 1", "include", "a list"),
        ("[timing]\nstep = 1", "timing.step", "Did you mean 'steps'"),
        ("[timing]\nsteps = 0", "timing.steps", "at least 1"),
        ("[timing]\nsteps = 121", "timing.steps", "at most workload.steps (120)"),
        ("[timing]\nburn_in_steps = 0", "timing.burn_in_steps", "at least 1"),
        ("[timing]\nphase_steps = 'x'", "timing.phase_steps", "whole number"),
        ("[timing]\ntimeout_seconds = -1", "timing.timeout_seconds", "above 0"),
        ("[timing]\ntimeout_seconds = nan", "timing.timeout_seconds", "finite"),
        ("[timing]\ntimeout_seconds = inf", "timing.timeout_seconds", "finite"),
        ("[timing]\ntimeout_seconds = 1e999", "timing.timeout_seconds", "finite"),
        ("[workload]\nstepz = 1", "workload.stepz", "Did you mean 'steps'"),
        ("[workload]\nname = 'sst2'", "workload.name", "one of mlm"),
        ("[workload]\nmodel = 'tiney'", "workload.model", "Did you mean 'tiny'"),
        ("[workload]\nmodel = 1", "workload.model", "a name or a table"),
        ("[workload]\nmodel = {hidden = 8}", "workload.model", "layers"),
        ("[workload]\nmodel = {hidden = 9, layers = 1, heads = 2, intermediate = 8}",
         "workload.model", "multiple"),
        ("[workload]\ncorpus = 3", "workload.corpus", "a text"),
        ("[workload]\ncorpus = 'python_doc'", "workload.corpus", "Did you mean 'python_docs'"),
        ("[workload]\ncorpus = 'path:'", "workload.corpus", "must follow the colon"),
        ("[workload]\nvocabulary_size = 1", "workload.vocabulary_size", "at least 64"),
        ("[workload]\nseq_len = true", "workload.seq_len", "whole number"),
        ("[workload]\nseq_len = [64, '64']", "workload.seq_len[1]", "whole number"),
        ("[workload]\nseq_len = [64, 32, 64]", "workload.seq_len[2]", "repeats"),
        ("[workload]\nseq_len = []", "workload.seq_len", "empty list"),
        ("[workload]\nbatch_size = -4", "workload.batch_size", "at least 1"),
        ("[workload]\nmicro_batches = 0.5", "workload.micro_batches", "whole number"),
        ("[workload]\nsteps = 2024-01-01", "workload.steps", "whole number"),
        ("[workload]\nposition_embedding = 'learnt'", "workload.position_embedding", "'learned'"),
        ("[workload]\nmask_rate = 1", "workload.mask_rate", "above 0 and below 1"),
        ("[workload]\nmask_rate = nan", "workload.mask_rate", "finite"),
        ("[workload]\nevaluate_every = 0", "workload.evaluate_every", "at least 1"),
        ("[workload]\nevaluation_batches = 0", "workload.evaluation_batches", "at least 1"),
        ("[workload]\nheld_out_fraction = -0.1", "workload.held_out_fraction", "above 0"),
        ("[workload]\nlower_case = 'yes'", "workload.lower_case", "true or false"),
        ("[axes]\noptimiser = 'sgd'", "axes.optimiser", "Did you mean 'optimizer'"),
        ("[axes]\noptimizer = 'adamm'", "axes.optimizer", "Did you mean 'adam"),
        ("[axes]\noptimizer = 3", "axes.optimizer", "a name or a table"),
        ("[axes]\noptimizer = []", "axes.optimizer", "empty list"),
        ("[axes]\noptimizer = [['sgd']]", "axes.optimizer[0]", "a name or a table"),
        ("[axes]\noptimizer = ['adamw', 'sgd', 'adamw']", "axes.optimizer[2]",
         "repeats axes.optimizer[0]"),
        ("[axes]\noptimizer = {lr = 0.1}", "axes.optimizer", "has no 'name'"),
        ("[axes]\noptimizer = {name = 1}", "axes.optimizer", "a name or a table"),
        ("[axes]\noptimizer = {name = 'adamw', lrr = 0.1}", "axes.optimizer.lrr",
         "Did you mean 'lr'"),
        ("[axes]\noptimizer = [{name = 'adamw', lr = 'x'}]", "axes.optimizer[0].lr", "a number"),
        ("[axes]\noptimizer = {name = 'adamw', lr = nan}", "axes.optimizer.lr", "finite"),
        ("[axes]\noptimizer = {name = 'adamw', lr = [0.1, -0.1]}", "axes.optimizer.lr",
         "must not be negative"),
        ("[axes]\noptimizer = {name = 'adamw', lr = [0.1, 0.1]}", "axes.optimizer", "repeats"),
        ("[axes]\noptimizer = {name = 'adamw', betas = [0.9, 1.0]}", "axes.optimizer.betas",
         "from 0 to below 1"),
        ("[axes]\noptimizer = ['sgd', {name = 'nesterov', momentum = [0.9, 1]}]",
         "axes.optimizer[1].momentum", "from 0 to below 1"),
        ("[axes]\ndevice = {name = 'cpu', threads = -1}", "axes.device.threads", "not be negative"),
        ("[axes]\ndevice = {name = 'cuda', index = [0, -1]}", "axes.device.index",
         "not be negative"),
        ("[axes.kernel]\noptimizer_step = 'mine:step'", "axes.kernel.optimizer_step",
         "write optimizer = 'module:Name'"),
        ("[workload]\nmodel = {hidden = [], layers = 1, heads = 2, intermediate = 8}",
         "workload.model.hidden", "empty list"),
        ("[axes]\noptimizer = {name = 'adamw', lr = []}", "axes.optimizer.lr", "empty list"),
        ("[axes]\noptimizer = {name = 'adamw', fused = true}", "axes.optimizer",
         "kernel.optimizer_step"),
        ("[axes]\noptimizer = 'nowhere_at_all:Mine'", "axes.optimizer", "nowhere_at_all"),
        ("[axes]\nregularizer = []", "axes.regularizer", "empty list"),
        ("[axes]\nregularizer = [[]]", "axes.regularizer[0]", "write 'none'"),
        ("[axes]\nregularizer = [['none', 'l1']]", "axes.regularizer[0]", "leave 'none' out"),
        ("[axes]\nregularizer = [['l1', 'l1']]", "axes.regularizer[0][1]", "twice"),
        ("[axes]\nregularizer = [['l1', 'emma']]", "axes.regularizer[0][1]", "'ema'"),
        ("[axes]\nkernel = 'math'", "axes.kernel", "a table"),
        ("[axes.kernel]\natention = 'math'", "axes.kernel.atention", "'attention'"),
        ("[axes.kernel]\nattention = 'maths'", "axes.kernel.attention", "'math'"),
        ("[[exclude]]\noptimizer = 'sgd'", "exclude[0].reason", "is missing"),
        ("[[exclude]]\nreason = ' '\noptimizer = 'sgd'", "exclude[0].reason", "is missing"),
        ("[[exclude]]\nreason = 'why'", "exclude[0]", "names nothing"),
        ("[[exclude]]\nreason = 'why'\noptimiser = 'sgd'", "exclude[0].optimiser", "'optimizer'"),
        ("[[exclude]]\nreason = 'why'\noptimizer = 'sdg'", "exclude[0].optimizer", "'sgd'"),
        ("[[exclude]]\nreason = 'why'\noptimizer = []", "exclude[0].optimizer", "empty list"),
        ("[[exclude]]\nreason = 'why'\noptimizer = 5", "exclude[0].optimizer", "a name or a table"),
        ("[[exclude]]\nreason = 'why'\noptimizer = {lrr = 1.0}", "exclude[0].optimizer.lrr",
         "'lr'"),
        ("[[exclude]]\nreason = 'why'\nsteps = '5'", "exclude[0].steps", "whole number"),
        ("[[exclude]]\nreason = 'why'\nkernel.atention = 'math'", "exclude[0].kernel.atention",
         "'attention'"),
        ("exclude = [1]", "exclude[0]", "a table"),
        ("include = ['sgd']", "include[0]", "a table"),
        ("[[include]]", "include[0]", "is empty"),
        ("[[include]]\noptimiser = 'sgd'", "include[0].optimiser", "'optimizer'"),
        ("[[include]]\nsteps = -1", "include[0].steps", "at least 1"),
        ("[[include]]\noptimizer = 'sdg'", "include[0].optimizer", "'sgd'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_key_path(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    """Oracle: the issue's sentence: file, key path, what is allowed, the nearest name."""
    error = refusal(tmp_path, text)

    assert error.key == key
    assert words in str(error)
    assert str(tmp_path / "some.toml") in str(error)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """Oracle: the limit of 1,000,000 bytes; the text would be no TOML either."""
    error = refusal(tmp_path, "[" * 1_000_001)

    assert "larger than 1,000,000 bytes" in str(error)


def test_more_than_ten_thousand_cells_are_refused_uncounted_ones_too(tmp_path: Path) -> None:
    """Oracle: 101 x 100 = 10,100 cells; and 9,999 + 2 with an include; 10,000 pass."""
    long = "[workload]\nsteps = {}\nseq_len = {}"
    count = lambda n, start: list(range(start, start + n))  # noqa: E731 - one use of two

    assert "10,100 cells" in str(refusal(tmp_path, long.format(count(101, 1), count(100, 8))))
    assert load(tmp_path, long.format(count(100, 1), count(100, 8))).cell_count() == 10_000
    more = "\n[[include]]\nsteps = [2000]\nseq_len = 8"
    assert "10,001" in str(refusal(tmp_path, long.format(count(100, 1), count(100, 8)) + more))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[axes]\noptimizer = {name = 'adamw', lr = LIST, eps = LIST}", "axes.optimizer"),
        ("[axes]\noptimizer = ['sgd', {name = 'adamw', lr = LIST, eps = LIST}]",
         "axes.optimizer[1]"),
        ("[axes]\nregularizer = [['ema', {name = 'l1', l1 = LIST}, {name = 'l2', l2 = LIST}]]",
         "axes.regularizer[0]"),
        ("[workload]\nmodel = {hidden = LIST, layers = LIST, heads = 1, intermediate = 8}",
         "workload.model"),
        ("[[include]]\noptimizer = {name = 'adamw', lr = LIST, eps = LIST}",
         "include[0].optimizer"),
    ],
)  # fmt: skip
def test_a_product_too_large_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, key: str
) -> None:
    """Oracle: 4,000 x 4,000 = 16,000,000; asking for the product ends the test."""
    import itertools
    import math

    whole = itertools.product

    def product(*lists: list[object]) -> object:
        assert math.prod(map(len, lists)) <= 10_000, "the product was asked for"
        return whole(*lists)

    monkeypatch.setattr(itertools, "product", product)
    monkeypatch.setattr("bertopt_bench.matrix.choices.product", product, raising=False)
    error = refusal(tmp_path, text.replace("LIST", str(list(range(1, 4001)))))

    assert "16,000,000 levels; at most 10,000" in str(error)
    assert error.key == key


def test_levels_are_counted_over_all_tables_of_an_axis(tmp_path: Path) -> None:
    """Oracle: by hand: 6,000 + 6,000 levels from two tables, each of which alone would do."""
    rates = "{{name = '{}', lr = {}}}"
    tables = [rates.format(name, list(range(1, 6001))) for name in ("sgd", "adam")]

    assert "12,000 levels" in str(refusal(tmp_path, f"[axes]\noptimizer = [{', '.join(tables)}]"))


def test_a_file_that_cannot_be_read_is_the_users_to_mend(tmp_path: Path) -> None:
    """Oracle: the house rule on errors; the nearest file in the folder is named."""
    (tmp_path / "quickstart.toml").write_text("seeds = [1]")

    with pytest.raises(UserError, match=r"quickstart\.toml'\?"):
        spec.load(tmp_path / "quikstart.toml")
    with pytest.raises(UserError, match="directory"):
        spec.load(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Oracle: 0xff occurs nowhere in UTF-8."""
    (tmp_path / "some.toml").write_bytes(b'name = "\xff"')

    with pytest.raises(MatrixError, match="byte 8"):
        spec.load(tmp_path / "some.toml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("nonsense", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("workload..steps=3", "KEY=VALUE"),
        ("seeds.first=3", "seeds is no table"),
        ("workload.steps='3'", "whole number"),
        ("workload.stepz=3", "Did you mean 'steps'"),
        ("seeds=[1]\nreplicates=3", "a list"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, words: str) -> None:
    """Oracle: the errors of the same mistakes in the file; an override sets one key only."""
    assert words in str(refusal(tmp_path, "seeds = [1]", override))


def test_overrides_set_keys_of_any_depth_and_names_need_no_quotes(tmp_path: Path) -> None:
    """Oracle: the same matrix with the values written into the file."""
    written = load(
        tmp_path,
        "seeds = [3]\n[workload]\nsteps = 7\n[axes]\noptimizer = ['sgd', 'lion']\n"
        "kernel.attention = 'math'",
    )
    overridden = load(
        tmp_path,
        "seeds = [1]\n[axes]\noptimizer = 'adamw'",
        "seeds=[3]",
        "workload.steps=7",
        "axes.optimizer=['sgd', 'lion']",
        "axes.kernel.attention=math",
    )

    assert overridden.levels == written.levels
    assert overridden.seeds == (3,)
    assert overridden.digest == written.digest
    assert "workload.steps=7" in overridden.source


def test_the_digest_is_of_what_is_asked_for(tmp_path: Path) -> None:
    """Oracle: name, comments and order ask for nothing; a seed, a step and an order of betas do."""
    base = "seeds = [1, 2]\n[axes]\noptimizer = ['adamw', 'sgd']\n"
    digest = load(tmp_path, base).digest

    same = "# a comment\nname = 'x'\nseeds = [2, 1]\n[axes]\noptimizer = ['sgd', 'adamw']\n"
    assert load(tmp_path, same).digest == digest
    assert load(tmp_path, base, "seeds=[1]").digest != digest
    assert load(tmp_path, base, "workload.steps=7").digest != digest
    betas = [f"axes.optimizer={{name = 'adamw', betas = {b}}}" for b in ([0.5, 0.9], [0.9, 0.5])]
    assert load(tmp_path, base, betas[0]).digest != load(tmp_path, base, betas[1]).digest


def test_reading_a_matrix_does_not_import_torch(tmp_path: Path) -> None:
    """Oracle: sys.modules of a fresh interpreter that has expanded and forecast a matrix."""
    import subprocess
    import sys

    (tmp_path / "some.toml").write_text("[axes]\noptimizer = ['adamw', 'muon']")
    code = (
        "import sys; from bertopt_bench.matrix import cells, forecast, spec; "
        "m = spec.load('some.toml'); print(forecast.describe_plan(m, cells.expand(m))); "
        "heavy = {'torch', 'pandas', 'pydantic', 'tokenizers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "muon" in done.stdout


def test_a_corpus_of_the_hub_needs_a_revision(tmp_path: Path) -> None:
    """Oracle: the words that say what to write; with a revision it is read as it stands."""
    bare = refusal(tmp_path, '[workload]\ncorpus = "hf:some/set"')
    matrix = load(tmp_path, '[workload]\ncorpus = "hf:some/set@0123abc"')

    assert "Write hf:some/set@REVISION" in str(bare)
    assert matrix.levels["workload.corpus"] == ("hf:some/set@0123abc",)
