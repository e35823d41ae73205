"""Tempered GGUF copies: what is scaled, what is kept, and how exact each storage form is.

References come from the gguf package's own reader and dequantiser, not from models.gguf_file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models.disk
import models.gguf.temper as temper_module
from backends.interface import Head
from backends.llamacpp.quantise import quantise
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.gguf.export import export_gguf
from models.gguf.temper import TemperReport, gguf_heads, temper_gguf
from models.gguf_file import read_gguf
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import build_tiny

LAYERS, HEADS = 3, 6
K_SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 2}
"""Rows of a multiple of 256, so that llama.cpp really uses K-quants."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temper")


def _directory(path: Path, family: str = "llama") -> ModelDirectory:
    return ModelDirectory(path, path.name, family, "0" * 64, str(path))


@pytest.fixture(scope="module")
def f32(folder: Path) -> Path:
    source = build_tiny("llama", folder / "tiny")
    return export_gguf(_directory(source), folder / "f32.gguf", dtype="f32")


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    """Six heads of dimension 32, the block size of the simple quantised types."""
    return build_tiny("llama", folder / "wide", head_dim=32)


@pytest.fixture(scope="module")
def k_f32(folder: Path) -> Path:
    """Two heads of dimension 256, the block size of the K-quants."""
    source = build_tiny("llama", folder / "k", **K_SHAPE, num_attention_heads=2, head_dim=256)
    return export_gguf(_directory(source), folder / "k.gguf", dtype="f32")


@pytest.fixture(scope="module")
def stored(folder: Path, wide: Path, k_f32: Path) -> Callable[[str], Path]:
    """A file whose attn_output has the given type and heads as wide as its blocks."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        out = folder / f"{kind}.gguf"
        if kind not in made and kind.isupper():
            made[kind] = write_gguf(wide, out, kind=kind)
        elif kind not in made:
            made[kind] = quantise(k_f32, out, kind)  # type: ignore[arg-type]
        return made[kind]

    return make


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def values(tensor: Any) -> np.ndarray:
    found = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
    return np.asarray(found, dtype=np.float32)


def name(layer: int) -> str:
    return f"blk.{layer}.attn_output.weight"


def columns(scales: Mapping[tuple[int, int], float], layer: int, width: int, dim: int) -> Any:
    """Factor of each column, written out as a loop."""
    factors = np.ones(width, dtype=np.float32)
    for column in range(width):
        factors[column] = scales.get((layer, column // dim), 1.0)
    return factors


def check_copy(
    source: Path, report: TemperReport, scales: Mapping[tuple[int, int], float], dim: int
) -> float:
    """Everything else is equal; returns the largest error relative to a block's largest value."""
    before, after = tensors(source), tensors(report.path)
    assert list(before) == list(after)
    worst = 0.0
    changed = {tensor.name: tensor for tensor in report.tensors}
    for key in before:
        if key not in changed:
            assert before[key].tensor_type == after[key].tensor_type
            assert before[key].data.tobytes() == after[key].data.tobytes()
            continue
        assert changed[key].before == before[key].tensor_type.name
        assert changed[key].after == after[key].tensor_type.name
        old, new = values(before[key]), values(after[key])
        wanted = old * columns(scales, int(key.split(".")[1]), old.shape[1], dim)
        block = gguf.GGML_QUANT_SIZES[before[key].tensor_type][0]
        block = dim if block == 1 else block
        size = np.abs(wanted).reshape(-1, block).max(axis=1)
        error = np.abs(new - wanted).reshape(-1, block).max(axis=1)
        assert (error[size == 0] == 0).all()
        worst = max(worst, float((error[size > 0] / size[size > 0]).max(initial=0.0)))
    assert read_gguf(source).metadata == read_gguf(report.path).metadata
    return worst


# What is scaled ---------------------------------------------------------------------------


@given(
    scales=st.dictionaries(
        st.tuples(st.integers(0, LAYERS - 1), st.integers(0, HEADS - 1)),
        st.floats(-2, 2, width=32),
        max_size=6,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_float32_columns_are_multiplied_exactly(
    scales: dict[tuple[int, int], float], f32: Path, folder: Path
) -> None:
    report = temper_gguf(f32, folder / "copy.gguf", scales)
    assert check_copy(f32, report, scales, 16) == report.rounding == 0.0
    assert [t.name for t in report.tensors] == [name(n) for n in sorted({n for n, _ in scales})]
    assert report.retyped == ()


def test_the_neighbouring_head_is_not_meant(f32: Path, tmp_path: Path) -> None:
    """The check above would see it."""
    report = temper_gguf(f32, tmp_path / "copy.gguf", {(1, 3): 0.5})
    assert check_copy(f32, report, {(1, 3): 0.5}, 16) == 0
    assert check_copy(f32, report, {(1, 2): 0.5}, 16) > 0.4
    assert check_copy(f32, report, {(1, 3): 0.25}, 16) > 0.4


def test_heads_of_the_interface_are_accepted(f32: Path, tmp_path: Path) -> None:
    one = temper_gguf(f32, tmp_path / "one.gguf", {Head(2, 5): 0.5})
    other = temper_gguf(f32, tmp_path / "other.gguf", {(2, 5): 0.5})
    assert one.path.read_bytes() == other.path.read_bytes() != f32.read_bytes()


def test_a_factor_of_zero_gives_zeros(f32: Path, tmp_path: Path) -> None:
    every = {(1, head): 0.0 for head in range(HEADS)}
    report = temper_gguf(f32, tmp_path / "copy.gguf", every)
    assert not values(tensors(report.path)[name(1)]).any()
    assert values(tensors(report.path)[name(0)]).any()


# What is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [{}, {(0, 1): 1.0, (2, 5): 1.0}], ids=["none", "ones"])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1", "q4_k_m"])
def test_nothing_to_do_gives_the_same_bytes(
    kind: str,
    scales: dict[tuple[int, int], float],
    stored: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    source = stored(kind)
    kept = {key: factor for key, factor in scales.items() if key[1] < 2}
    report = temper_gguf(source, tmp_path / "copy.gguf", kept)
    assert report.path.read_bytes() == source.read_bytes()
    assert report.rounding == 0 and report.retyped == ()
    changed = temper_gguf(source, tmp_path / "changed.gguf", {(0, 1): 0.5})
    assert changed.path.read_bytes() != source.read_bytes()
    assert changed.path.stat().st_size == source.stat().st_size


def test_a_forced_form_changes_the_storage_of_the_named_layers_alone(
    stored: Callable[[str], Path], tmp_path: Path
) -> None:
    source = stored("Q8_0")
    report = temper_gguf(source, tmp_path / "copy.gguf", {(1, 0): 1.0}, form="f32")
    assert report.retyped == (name(1),) and report.rounding == 0
    assert check_copy(source, report, {}, 32) == 0
    more = temper_gguf(source, tmp_path / "more.gguf", {}, form="f32", layers=[2, 0])
    assert more.retyped == (name(0), name(2))
    assert check_copy(source, more, {}, 32) == 0


def test_forcing_float32_on_a_float32_file_changes_nothing(f32: Path, tmp_path: Path) -> None:
    report = temper_gguf(f32, tmp_path / "copy.gguf", {}, form="f32", layers=range(LAYERS))
    assert report.path.read_bytes() == f32.read_bytes()
    assert [(t.before, t.after) for t in report.tensors] == [("F32", "F32")] * LAYERS


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1", "q4_k_m", "q5_k_m", "straddling", "k64"])
def test_every_point_of_a_sweep_has_one_storage_form(
    kind: str, stored: Callable[[str], Path], straddling: Path, k64: Path, tmp_path: Path
) -> None:
    source = {"straddling": straddling, "k64": k64}.get(kind) or stored(kind)
    forms = set()
    for factor in (1.0, 0.9, 0.5, 0.0):
        report = temper_gguf(source, tmp_path / "copy.gguf", {(0, 1): factor}, layers=[2])
        found = tensors(report.path)
        forms.add(
            tuple((t.name, t.tensor_type.name, len(t.data.tobytes())) for t in found.values())
        )
        assert [t.name for t in report.tensors] == [name(0), name(2)]
    assert len(forms) == 1
    untouched = tuple(
        (t.name, t.tensor_type.name, len(t.data.tobytes())) for t in tensors(source).values()
    )
    assert (forms == {untouched}) == (kind not in ("straddling", "k64"))


def test_metadata_is_kept_byte_for_byte_when_tensors_change_type(
    straddling: Path, tmp_path: Path
) -> None:
    """Strings, arrays of strings and of numbers, a template with line breaks."""
    report = temper_gguf(straddling, tmp_path / "copy.gguf", {(0, 1): 0.5})
    old, new = straddling.read_bytes(), report.path.read_bytes()
    first = min(old.index(t.name.encode()) for t in tensors(straddling).values())
    assert first > 4000 and old[: first - 8] == new[: first - 8]
    assert len(new) > len(old)


@pytest.mark.parametrize("alignment", [8, 64, 256])
def test_the_files_own_alignment_is_kept(alignment: int, tmp_path: Path) -> None:
    """Written with the gguf package; odd tensor sizes, so that padding matters."""
    source = tmp_path / "aligned.gguf"
    writer = gguf.GGUFWriter(str(source), "llama")
    writer.add_custom_alignment(alignment)
    writer.add_block_count(1)
    writer.add_head_count(3)
    writer.add_array("some.flags", [True, False, True])
    generator = np.random.default_rng(0)
    arrays = {"odd": generator.normal(size=7), name(0): generator.normal(size=(5, 48)),
              "last": generator.normal(size=3)}  # fmt: skip
    for key, array in arrays.items():
        kind = gguf.GGMLQuantizationType["F16" if key == name(0) else "F32"]
        data = gguf.quants.quantize(array.astype(np.float32), kind)
        writer.add_tensor(key, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    report = temper_gguf(source, tmp_path / "copy.gguf", {(0, 2): 0.3}, form="f32")
    assert check_copy(source, report, {(0, 2): 0.3}, 16) == 0
    assert all(t.data_offset % alignment == 0 for t in tensors(report.path).values())
    assert report.path.stat().st_size % alignment == 0


# How exact it is --------------------------------------------------------------------------

HALF = 2.0**-11
"""Half a unit in the last place of float16, relative: what rounding one scale can cost."""
EXACT = 0.0
FORMS = {
    "F16": (1e-6, HALF),
    "Q8_0": (EXACT, 1.02 * HALF),
    "Q4_0": (EXACT, 1.02 * HALF),
    "Q5_0": (EXACT, 1.02 * HALF),
    "Q4_1": (EXACT, 4 * HALF),
    "Q5_1": (EXACT, 4 * HALF),
    "q4_k_m": (EXACT, 4 * HALF),
    "q5_k_m": (EXACT, 4 * HALF),
}
"""Largest rounding at 0.5 and at 0.3. A power of two is exact while what is rounded is a normal
float16 number; in F16 the smallest weights are not, 6e-8 of weights up to 0.6. Two scales of
opposite sign, as d and m, leave a smaller weight than either: a small multiple of HALF."""


@pytest.mark.parametrize("kind", FORMS)
def test_rounding_is_measured_and_reported(
    kind: str, stored: Callable[[str], Path], tmp_path: Path
) -> None:
    source = stored(kind)
    dim = 32 if kind.isupper() else 256
    expected = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K"}.get(kind, kind)
    for factor, most in zip((0.5, 0.3), FORMS[kind], strict=True):
        scales = {(0, 1): factor, (2, 0): factor}
        report = temper_gguf(source, tmp_path / "copy.gguf", scales)
        assert [(t.before, t.after) for t in report.tensors] == [(expected, expected)] * 2
        measured = check_copy(source, report, scales, dim)
        print(f"{kind} {factor}: {measured:.2e}")
        assert math.isclose(report.rounding, measured, rel_tol=1e-6)
        assert report.rounding <= most
    assert report.rounding > 0  # 0.3 is not a power of two
    assert report.as_dict()["rounding"] == report.rounding


@pytest.mark.parametrize(
    ("kind", "size", "exact"),
    [("q4_k_m", 0.5, True), ("q4_k_m", 0.25, False), ("q5_k_m", 1, True), ("q5_k_m", 0.5, False)],
)
def test_subnormal_block_scales_of_small_weights_are_reported(
    kind: str, size: float, exact: bool, k_f32: Path, tmp_path: Path
) -> None:
    """K-quants divide a block's range by 63 * 15 or 63 * 31. With weights of deviation 0.017
    (Q4_K) or 0.033 (Q5_K) that is below the smallest normal float16, and a half is rounded too.
    The largest error is half a subnormal step of d and of dmin, times what multiplies them."""
    every = {(layer, head): size for layer in range(LAYERS) for head in range(2)}
    small = temper_gguf(k_f32, tmp_path / "small.gguf", every).path
    quantised = quantise(small, tmp_path / "q.gguf", kind)  # type: ignore[arg-type]
    report = temper_gguf(quantised, tmp_path / "copy.gguf", {(0, 0): 0.5})
    old, new = (values(tensors(path)[name(0)]) for path in (quantised, report.path))
    error = np.abs(new[:, :256] - 0.5 * old[:, :256]).max()
    levels = {"q4_k_m": 15, "q5_k_m": 31}[kind]
    print(f"{kind} {old.std():.3f}: {report.rounding:.1e}")
    assert error <= 2.0**-25 * 63 * (levels + 1)
    assert (report.rounding == 0) == (error == 0) == exact
    assert report.rounding < 4e-3
    forced = temper_gguf(quantised, tmp_path / "forced.gguf", {(0, 0): 0.5}, form="f32")
    assert forced.rounding == check_copy(quantised, forced, {(0, 0): 0.5}, 256) == 0


@pytest.fixture(scope="module")
def straddling(folder: Path) -> Path:
    """Blocks of 32 over heads of dimension 16."""
    return write_gguf(folder / "tiny", folder / "straddling.gguf", kind="Q8_0")


@pytest.fixture(scope="module")
def k64(folder: Path) -> Path:
    """A K-quant, blocks of 256, over heads of dimension 64."""
    source = build_tiny("llama", folder / "k64", **K_SHAPE, num_attention_heads=4, head_dim=64)
    whole = export_gguf(_directory(source), folder / "k64-f16.gguf", dtype="f16")
    return quantise(whole, folder / "k64.gguf", "q4_k_m")


@pytest.mark.parametrize(
    ("kind", "dim", "before"), [("straddling", 16, "Q8_0"), ("k64", 64, "Q4_K")]
)
def test_blocks_over_several_heads_become_float32_and_the_report_says_so(
    kind: str, dim: int, before: str, straddling: Path, k64: Path, tmp_path: Path
) -> None:
    source = {"straddling": straddling, "k64": k64}[kind]
    scales = {(0, 1): 0.3, (0, 3): 0.0, (1, 0): 1.0}
    report = temper_gguf(source, tmp_path / "copy.gguf", scales)
    assert report.retyped == (name(0), name(1))
    assert {(t.before, t.after) for t in report.tensors} == {(before, "F32")}
    assert check_copy(source, report, scales, dim) == report.rounding == 0


def test_a_bfloat16_tensor_becomes_float32(wide: Path, tmp_path: Path) -> None:
    source = write_gguf(wide, tmp_path / "bf16.gguf", kind="BF16")
    report = temper_gguf(source, tmp_path / "copy.gguf", {(1, 4): 0.9})
    assert [(t.before, t.after) for t in report.tensors] == [("BF16", "F32")]
    assert check_copy(source, report, {(1, 4): 0.9}, 32) == 0


def test_a_scale_that_vanishes_is_a_rounding_of_one(
    stored: Callable[[str], Path], tmp_path: Path
) -> None:
    report = temper_gguf(stored("Q8_0"), tmp_path / "copy.gguf", {(1, 0): 1e-9})
    assert report.rounding == 1.0


# What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({(1, 6): 0.5}, "layer 1 has heads 0 to 5, and no head 6"),
        ({(1, -1): 0.5}, "layer 1 has heads 0 to 5, and no head -1"),
        ({(3, 0): 0.5}, "layer 3 has no attention heads; layers that have: 0, 1, 2"),
        ({(0, 0): math.nan}, "layer 0 head 0: a factor is a finite float32 number, not nan"),
        ({(0, 0): -math.inf}, "a factor is a finite float32 number, not -inf"),
        ({(0, 0): 1e39}, "a factor is a finite float32 number, not 1e\\+39"),
    ],
)
def test_impossible_heads_and_factors_are_refused_in_one_line(
    scales: dict[tuple[int, int], float], message: str, f32: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        temper_gguf(f32, tmp_path / "copy.gguf", scales)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_or_form_is_refused(f32: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="layer 7 has no attention heads"):
        temper_gguf(f32, tmp_path / "copy.gguf", {}, layers=[0, 7])
    with pytest.raises(UserError, match="unknown form 'f16'; give one of kept, f32"):
        temper_gguf(f32, tmp_path / "copy.gguf", {}, form="f16")  # type: ignore[arg-type]


def test_a_factor_that_float16_cannot_hold_names_the_way_out(
    stored: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"float16 cannot hold the result; .*use the form f32"):
        temper_gguf(stored("Q8_0"), tmp_path / "copy.gguf", {(0, 0): 1e8})
    report = temper_gguf(stored("Q8_0"), tmp_path / "copy.gguf", {(0, 0): 1e8}, form="f32")
    assert report.retyped == (name(0),)


def test_other_architectures_and_kinds_of_file_are_refused(folder: Path, tmp_path: Path) -> None:
    other = write_gguf(folder / "tiny", tmp_path / "q.gguf", general__architecture="mamba")
    with pytest.raises(CapabilityError, match=r"q\.gguf: where the heads of a mamba lie is not"):
        temper_gguf(other, tmp_path / "copy.gguf", {(0, 0): 0.5})
    part = write_gguf(folder / "tiny", tmp_path / "part.gguf", split__count=2)
    with pytest.raises(CapabilityError, match="is one part of several: merge them"):
        temper_gguf(part, tmp_path / "copy.gguf", {(0, 0): 0.5})
    adapter = write_gguf(folder / "tiny", tmp_path / "a.gguf", general__type="adapter")
    with pytest.raises(UserError, match="of type adapter; give one of type model"):
        temper_gguf(adapter, tmp_path / "copy.gguf", {(0, 0): 0.5})
    odd = write_gguf(folder / "tiny", tmp_path / "odd.gguf", llama__attention__head_count=None)
    with pytest.raises(UserError, match="None heads do not divide"):
        temper_gguf(odd, tmp_path / "copy.gguf", {(0, 0): 0.5})


def test_heads_are_read_from_the_file(f32: Path, wide: Path, stored: Callable[[str], Path]) -> None:
    assert gguf_heads(read_gguf(f32)) == dict.fromkeys(range(3), (6, 16))
    assert gguf_heads(read_gguf(stored("Q8_0"))) == dict.fromkeys(range(3), (6, 32))


def test_the_source_is_never_replaced(f32: Path) -> None:
    before = f32.read_bytes()
    with pytest.raises(UserError, match=r"would replace .* give another name"):
        temper_gguf(f32, f32.parent / "." / f32.name, {(0, 0): 0.5})
    assert f32.read_bytes() == before


@pytest.mark.parametrize("broken", ["_scale_in_place", "_retyped"])
def test_a_failure_leaves_the_earlier_copy_and_nothing_else(
    broken: str, f32: Path, straddling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy.gguf"
    out.write_bytes(b"earlier")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(temper_module, broken, fail)
    source = f32 if broken == "_scale_in_place" else straddling
    with pytest.raises(KeyboardInterrupt):
        temper_gguf(source, out, {(0, 0): 0.5})
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["copy.gguf"]


def test_a_full_disk_is_noticed_before(
    straddling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is larger than the source by the float32 tensor, and that is asked for."""
    asked: list[int] = []

    def require(_: Path, needs: int, __: str) -> None:
        asked.append(needs)
        raise UserError("no room")

    monkeypatch.setattr("models.files.require_free", require)
    assert models.disk.require_free is not require
    with pytest.raises(UserError, match="no room"):
        temper_gguf(straddling, tmp_path / "copy.gguf", {(0, 0): 0.5})
    assert asked == [straddling.stat().st_size + 96 * 96 * 4]
    assert list(tmp_path.iterdir()) == []
