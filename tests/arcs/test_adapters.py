"""``threearc adapters``: what is printed, one document for --json, one line for a mistake."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends.adapter_files import SIDECAR_FILE, read_adapter
from backends.adapters.contents import CONFIG_FILE
from backends.interface import LoraConfig
from models.directory import ModelDirectory
from tests.support.adapters import Tiny, edit_json, live_adapter, saved
from tests.support.tiny_models import build_tiny

CONFIG = LoraConfig(4, 6.0)


@pytest.fixture(autouse=True)
def _no_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THREEARC_BLAS_TRIED", "1")
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def llama(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama")


@pytest.fixture
def adapter(llama: ModelDirectory, tmp_path: Path) -> Path:
    return saved(tmp_path / "adapter", llama, CONFIG, live_adapter(llama, CONFIG))


class Done:
    """What one command printed, and its status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def document(self) -> dict[str, object]:
        assert self.status == 0, self.err
        return dict(json.loads(self.out))

    @property
    def error(self) -> str:
        assert self.status == 2
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def adapters(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run ``threearc adapters ...`` in this process."""

    def run(*arguments: object) -> Done:
        from arcs.cli import main

        capsys.readouterr()
        status = 0
        try:
            main(["adapters", *map(str, arguments)])
        except SystemExit as ended:
            status = int(ended.code or 0)
        out = capsys.readouterr()
        return Done(status, out.out, out.err)

    return run


# show --------------------------------------------------------------------------------------


def test_show_needs_no_engine_and_no_model(adapter: Path) -> None:
    code = (
        "import sys\nfrom arcs.cli import main\n"
        f"try:\n    main(['adapters', 'show', {str(adapter)!r}, '--json'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'torch', 'mlx', 'mlx_lm', 'llama_cpp', 'peft'} & set(sys.modules)), "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["format"] == "peft"


def test_show_says_what_the_files_hold(adapters, adapter: Path, llama: ModelDirectory) -> None:
    found = adapters("show", adapter, "--json").document
    assert (found["rank"], found["alpha"], found["scale"], found["rslora"]) == (4, 6.0, 1.5, False)
    assert found["base_name"] == llama.name and found["base_fingerprint"] == llama.fingerprint
    assert found["sha256"] == read_adapter(adapter).sha256
    assert found["extra"] == {"steps": 12} and found["layers"] == [0, 1, 2]
    weights = read_adapter(adapter).contents.weights
    assert found["parameters"] == sum(value.size for value in weights.values())
    kinds = {kind["name"]: kind for kind in found["kinds"]}
    assert len(kinds) == 7 and kinds["mlp.up_proj"]["layers"] == [0, 1, 2]
    updates = [
        1.5
        * weights[f"model.layers.{n}.mlp.up_proj.lora_B"].astype(np.float64)
        @ weights[f"model.layers.{n}.mlp.up_proj.lora_A"]
        for n in range(3)
    ]
    expected = np.sqrt(sum(np.square(update).sum() for update in updates))
    assert kinds["mlp.up_proj"]["update_norm"] == pytest.approx(expected, rel=1e-9)


def test_show_in_words(adapters, adapter: Path) -> None:
    done = adapters("show", adapter)
    assert "rank 4, alpha 6, scale 1.5" in done.out and "mlp.up_proj" in done.out
    assert "kept: steps" in done.out and "0-2" in done.out


# export ------------------------------------------------------------------------------------


def test_export_finds_the_base_by_itself_and_prints_one_document(
    adapters, adapter: Path, tmp_path: Path, llama: ModelDirectory
) -> None:
    found = adapters("export", adapter, "--to", "mlx", "--out", tmp_path / "mlx", "--json").document
    assert (found["action"], found["to"], found["base_name"]) == ("export", "mlx", llama.name)
    assert found["proof"]["status"] == "proven"
    (compared,) = found["proof"]["comparisons"]
    assert compared["difference"] <= compared["bound"] == 1e-4
    assert found["proof"]["effect"] > 1e-3 and "mlx-lm" in found["proof"]["versions"]
    command = shlex.split(found["use"])
    assert command[:4] == ["python", "-m", "mlx_lm", "generate"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert (Path(options["--model"]) / "config.json").is_file()
    assert options["--adapter-path"] == str(tmp_path / "mlx")
    shown = adapters("show", tmp_path / "mlx", "--json").document
    assert shown["format"] == "mlx" and shown["sha256"] == found["adapter_sha256"]
    assert shown["proof"]["status"] == "proven"


def test_export_in_words_says_difference_bound_and_engines(
    adapters, adapter: Path, tmp_path: Path
) -> None:
    done = adapters("export", adapter, "--to", "peft", "--out", tmp_path / "peft")
    assert done.status == 0
    for words in ("proven on 96 tokens", "torch / peft", "1.0e-05", "own effect"):
        assert words in done.out


def test_an_unproven_export_is_loud_everywhere_and_exits_with_0(
    adapters, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import backends.adapters.proof as proof

    missing = {"mlx": "mlx is not installed: pip install it", "torch": None}
    monkeypatch.setattr(proof, "available_backends", lambda: missing)
    done = adapters("export", adapter, "--to", "mlx", "--out", tmp_path / "mlx")
    assert done.status == 0
    assert "UNPROVEN: mlx is not installed" in done.out
    assert "unproven: mlx is not installed" in done.err
    again = adapters("export", adapter, "--to", "mlx", "--out", tmp_path / "two", "--json")
    assert again.document["proof"]["status"] == "unproven"
    assert json.loads((tmp_path / "mlx" / SIDECAR_FILE).read_text())["proof"]["reason"]


def test_a_failed_proof_is_one_line_and_leaves_nothing(
    adapters, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import backends.adapters.proof as proof

    monkeypatch.setattr(proof, "OTHER", 1e-9)  # what no two engines hold
    error = adapters("export", adapter, "--to", "mlx", "--out", tmp_path / "mlx").error
    assert "differ by" in error and "nothing was written" in error
    assert not (tmp_path / "mlx").exists()


def test_an_adapter_that_names_no_base_needs_model(
    adapters, adapter: Path, tmp_path: Path, llama: ModelDirectory
) -> None:
    (adapter / SIDECAR_FILE).unlink()
    edit_json(adapter / CONFIG_FILE, base_model_name_or_path=None)
    command = ("export", adapter, "--to", "peft", "--out", tmp_path / "out")
    assert "names no base model: give the base with --model" in adapters(*command).error
    edit_json(adapter / CONFIG_FILE, base_model_name_or_path="/nowhere/tiny")
    assert "names /nowhere/tiny, not found here" in adapters(*command).error
    edit_json(adapter / CONFIG_FILE, base_model_name_or_path=None)
    done = adapters(*command, "--model", llama.source)
    assert done.status == 0 and "proven" in done.out


# merge -------------------------------------------------------------------------------------


def test_merge_writes_a_model_that_is_prepared_by_path(
    adapters, adapter: Path, tmp_path: Path, llama: ModelDirectory
) -> None:
    from models.chat import load_tokenizer
    from models.store import prepare

    command = ("merge", adapter, "--out", tmp_path / "merged", "--dtype", "bfloat16", "--json")
    found = adapters(*command).document
    assert (found["dtype"], found["modules"]) == ("bfloat16", 21)
    assert [row["what"] for row in found["proof"]["comparisons"]] == [
        "the merge in float32", "the written directory", "the written directory in bfloat16",
    ]  # fmt: skip
    again = prepare(str(tmp_path / "merged"))
    assert again.name == "merged" and again.fingerprint != llama.fingerprint
    assert load_tokenizer(tmp_path / "merged").chat_template


# mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "nowhere"), "is not a LoRA adapter"),
        (("show", "x" * 5000), "cannot read"),
        (("export", "ADAPTER", "--to", "onnx", "--out", "NEW"), "choose one of mlx, gguf, peft"),
        (("export", "ADAPTER", "--to", "mlx", "--out", "ADAPTER"), "exists already"),
        (("export", "ADAPTER", "--to", "mlx", "--out", "NEW", "--model", "no-such"), "no-such"),
        (("export", "ADAPTER", "--to", "mlx", "--out", "NEW", "--model", "OTHER"), "trained on"),
        (("merge", "ADAPTER", "--out", "NEW", "--dtype", "int8"), "choose one of float32"),
        (("merge", "ADAPTER", "--out", "NEW", "--model", "OTHER"), "was trained on"),
    ],
)
def test_mistakes_are_one_line(
    adapters, adapter: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    if "OTHER" in arguments:
        build_tiny("llama", tmp_path / "other", seed=1)
    places = {"ADAPTER": adapter, "NEW": tmp_path / "new", "OTHER": tmp_path / "other"}
    error = adapters(*(places.get(argument, argument) for argument in arguments)).error
    assert words in error
    assert not (tmp_path / "new").exists()


def test_an_adapter_that_is_a_folder_without_rights_is_one_line(
    adapters, adapter: Path, tmp_path: Path
) -> None:
    (adapter / CONFIG_FILE).unlink()
    (adapter / CONFIG_FILE).mkdir()
    assert "cannot read" in adapters("show", adapter).error
    (tmp_path / "file").write_text("")
    line = adapters("export", tmp_path / "file", "--to", "mlx", "--out", tmp_path / "new").error
    assert "is not a LoRA adapter" in line
