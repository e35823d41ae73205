# Three-Arc: one recipe per question. Everything a recipe needs is installed by `setup`.
set positional-arguments

# [no-exit-message]: what threearc says of a mistake is the last line; just adds none about itself.

# Tests run many small jobs: one thread each is faster than threads that spin against each other,
# and a process a core (up to 4: each holds engines) faster still. A file's tests stay together.
test_env := "OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"
workers := "-n auto --maxprocesses 4 --dist loadfile"

venv := justfile_directory() / ".venv"
threearc := venv / "bin" / "threearc"

# List the recipes.
default:
    @just --list

# Make .venv and install threearc with every engine this platform runs; nothing when up to date.
[no-exit-message]
setup:
    @sh .ci/setup all

# Does a LoRA on disposition data change behaviour without costing capability, at every n_predict?
[no-exit-message]
arc1 *args: setup
    @"{{threearc}}" arc1 "$@"

# Can damping attention heads at the o_proj input move a disposition and keep content?
[no-exit-message]
arc2 *args: setup
    @"{{threearc}}" arc2 "$@"

# Does h_last of the frozen base carry correctness that survives fresh prompts?
[no-exit-message]
arc3 *args: setup
    @"{{threearc}}" arc3 "$@"

# Does a claim about hidden states survive five steps, their gates fixed beforehand? Finished runs
# and features need no engine (`threearc falsify`), but --adapter does, so all are installed.
[no-exit-message]
falsify *args: setup
    @"{{threearc}}" falsify "$@"

# What does the paper's own recipe give on this machine, beside the paper's numbers?
[no-exit-message]
paper *args: setup
    @"{{threearc}}" paper "$@"

# What a run's claim rests on, in one file. (no engine)
[no-exit-message]
capsule *args: setup-logs
    @"{{threearc}}" capsule "$@"

# Replay a sample of a capsule here: what reproduces, and to what tolerance?
[no-exit-message]
verify *args: setup
    @"{{threearc}}" verify "$@"

# Decide what too few items left open: more of them, in looks, alpha spent over the looks.
[no-exit-message]
settle *args: setup
    @"{{threearc}}" settle "$@"

# Hedge a frozen model's answers by a probe of its own state.
[no-exit-message]
sidecar *args: setup
    @"{{threearc}}" sidecar "$@"

# Write a TOML file with every option of a command, its default and what it means. (no engine)
[no-exit-message]
init *args: setup-logs
    @"{{threearc}}" init "$@"

# A base and its edits, quantised, at several n_predict, in one table.
[no-exit-message]
eval *args: setup
    @"{{threearc}}" eval "$@"

# Dispositions of a base and its edits: meter, short answers, recovery, Chef, MCAS.
[no-exit-message]
measure *args: setup
    @"{{threearc}}" measure "$@"

# One page for a run, or for several compared: verdicts, tables, figures, transcripts. (no engine)
[no-exit-message]
report *args: setup-logs
    @"{{threearc}}" report "$@"

# A grid of runs (models x arcs x seeds x backends, any option) merged into one report.
[no-exit-message]
sweep *args: setup
    @"{{threearc}}" sweep "$@"

# The runs on disk: list, show, diff, rm. (no engine)
[no-exit-message]
runs *args: setup-logs
    @"{{threearc}}" runs "$@"

# Which published numbers of the paper follow from its published files? (no engine needed)
[no-exit-message]
reproduce *args: setup-logs
    @"{{threearc}}" reproduce "$@"

# Which known artifact patterns are in these results, ours or anyone's? (no engine needed)
[no-exit-message]
audit *args: setup-logs
    @"{{threearc}}" audit "$@"

# Show LoRA adapters, convert them between PEFT, mlx-lm and llama.cpp, merge them; proven by logits.
[no-exit-message]
adapters *args: setup
    @"{{threearc}}" adapters "$@"

# The data sets: show, check, split, mix, compare, import, have teachers write (generate, for which
# the engines are installed; the rest of `threearc data` needs none).
[no-exit-message]
data *args: setup
    @"{{threearc}}" data "$@"

# Judges of answers, and how far they can be believed.
[no-exit-message]
judge *args: setup
    @"{{threearc}}" judge "$@"

# The models threearc knows, and what is on disk.
[no-exit-message]
models *args: setup
    @"{{threearc}}" models "$@"

# Do MLX, PyTorch and llama.cpp agree on this machine, and within what?
[no-exit-message]
consistency *args: setup
    @"{{threearc}}" consistency "$@"

# How fast do the engines generate, extract, train and evaluate, beside their libraries' own calls?
[no-exit-message]
bench *args: setup
    @"{{threearc}}" bench "$@"

# Which engines, devices and dtypes work on this machine, what does not, and why.
[no-exit-message]
doctor *args: setup
    @"{{threearc}}" doctor "$@"

# All tests that take seconds; `just test-all` runs the slow ones too.
test *args: setup-test
    @env {{test_env}} "{{venv}}/bin/python" -m backends.blas "{{venv}}/bin/python" -m pytest {{workers}} -m "not slow" "$@"

# Every test.
test-all *args: setup-test
    @env {{test_env}} "{{venv}}/bin/python" -m backends.blas "{{venv}}/bin/python" -m pytest {{workers}} "$@"

# Format, lint and types, as CI runs them.
check: setup-test
    "{{venv}}/bin/ruff" format --check .
    "{{venv}}/bin/ruff" check .
    "{{venv}}/bin/mypy"

# threearc without engines, and what reads inspect_ai's logs.
[no-exit-message]
setup-logs:
    @sh .ci/setup logs

# What the tests need on top of `setup`.
[no-exit-message]
setup-test: setup
    @sh .ci/setup test
