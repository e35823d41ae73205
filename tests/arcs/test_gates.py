from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from arcs.gates import DEFAULT_GATES, load_gates
from models.errors import UserError


def written(folder: Path, old: str, new: str) -> Path:
    """The shipped gates file with one piece of text replaced."""
    text = DEFAULT_GATES.read_text()
    assert text.count(old) == 1
    path = folder / "gates.toml"
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_gates_hold_the_effects_that_matter_and_the_hash_of_the_file() -> None:
    gates = load_gates()
    effect = gates.smallest_effect
    assert (effect.pass_at_1, effect.auc, effect.rate, effect.meter) == (0.05, 0.05, 0.10, 0.20)
    assert (effect.shift, effect.loss, effect.separation) == (0.05, 0.10, 0.50)
    asked = gates.protocol  # the and the paper's numbers (PAPER.md 5.4, 7)
    assert (asked.cv_auc, asked.cv_asymmetry) == (0.65, 0.20)
    assert (asked.fresh_auc, asked.fresh_asymmetry, asked.asserted_right) == (0.63, 0.15, 0.70)
    assert (asked.axis_cv_auc, asked.axis_fresh_auc, asked.axis_correlation) == (0.65, 0.60, 0.80)
    assert gates.sha256 == hashlib.sha256(DEFAULT_GATES.read_bytes()).hexdigest()
    assert gates.level == pytest.approx(0.95)
    assert json.loads(json.dumps(gates.to_json()))["sha256"] == gates.sha256


def test_a_changed_file_has_another_hash(tmp_path) -> None:
    changed = load_gates(written(tmp_path, "pass_at_1 = 0.05", "pass_at_1 = 0.08"))
    assert changed.smallest_effect.pass_at_1 == 0.08
    assert changed.sha256 != load_gates().sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("alpha = 0.05\n# For", "aplha = 0.05\n# For", "unknown entry test.aplha"),
        ("[validity]", "[extra]\nx = 1\n[validity]", "unknown entry extra"),
        ("power = 0.80", "", "test.power is missing"),
        ("auc = 0.05", "auc = 5", "smallest_effect.auc must be a number between 0 and 1, not 5"),
        ("auc = 0.05", "auc = true", "smallest_effect.auc must be .* not True"),
        ("auc = 0.05", 'auc = "0.05"', "smallest_effect.auc must be .* not '0.05'"),
        ("auc = 0.05", "auc = nan", "smallest_effect.auc must be .* not nan"),
        ("auc = 0.05", "auc = ", "is not TOML"),
        ("[smallest_effect]", "smallest_effect = 1\n[rest]", "unknown entry rest"),
    ],
)
def test_a_wrong_entry_is_one_clear_line(tmp_path, old, new, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_gates(written(tmp_path, old, new))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot read the gates file"):
        load_gates(tmp_path / "none.toml")
