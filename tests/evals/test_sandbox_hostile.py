"""Hostile programs, at every isolation level that works here, for what the level declares.

Every program is bounded (50 forks, 1 GB, a listener and files of the test's own), so that a
level that fails to contain one does no lasting harm. A program that is refused says
"contained" in the exception it raises; one that succeeds says "HARM".
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evals.humaneval.execution import Execution, execute
from evals.humaneval.problems import Problem, dataset_path, load_problems
from evals.humaneval.sandbox import Hazard, IsolationLevel, Limits, levels_here

LEVELS = [found.level for found in levels_here() if found.level is not None]
QUICK = Limits(cpu_seconds=1, wall_seconds=30.0)
ADD = next(problem for problem in load_problems() if problem.entry_point == "add")
SECRET = 48151623420815
SECRET_PROBLEM = Problem(
    task_id="secret",
    prompt='def number():\n    """Guess."""\n',
    entry_point="number",
    canonical_solution=f"    return {SECRET}\n",
    test=f"def check(candidate):\n    assert candidate() == {SECRET}\n",
)

every_level = pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)


def containing(hazard: Hazard) -> pytest.MarkDecorator:
    """The levels that declare it."""
    levels = [level for level in LEVELS if hazard in level.contains]
    return pytest.mark.parametrize("level", levels, ids=lambda level: level.name)


def run(body: str, level: IsolationLevel, limits: Limits = QUICK) -> Execution:
    return execute(ADD, textwrap.dedent(body), level=level, limits=limits)


def attempt(action: str, level: IsolationLevel, limits: Limits = QUICK) -> str:
    """What became of an action inside the function: "contained" or "HARM" is in the text."""
    program = (
        "import os, signal, socket, subprocess, sys, time\n"
        "def add(x, y):\n"
        "    try:\n" + textwrap.indent(textwrap.dedent(action).strip(), " " * 8) + "\n"
        "    except (OSError, MemoryError) as error:\n"
        "        raise RuntimeError('contained by ' + type(error).__name__)\n"
        "    raise RuntimeError('HARM')\n"
    )
    result = execute(ADD, program, level=level, limits=limits)
    assert result.status in ("wrong", "timeout")
    return result.detail


@contextlib.contextmanager
def no_survivors() -> Iterator[None]:
    """No candidate process started inside is left a moment later."""
    started = time.time()
    yield
    # Of those that are there now: another test process goes on making some of its own, each of
    # which ends by its time limit.
    left = set(_candidates_since(started))
    deadline = time.monotonic() + 12
    while (left := left & set(_candidates_since(started))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _candidates_since(started: float) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "create_time", "status"]):
        info = process.info
        command = " ".join(info["cmdline"] or [])
        alive = info["status"] != psutil.STATUS_ZOMBIE
        if "programs import worker" in command and info["create_time"] >= started - 1 and alive:
            found.append(process.pid)
    return found


def test_some_level_works_here() -> None:
    assert LEVELS


@every_level
def test_an_honest_program_passes(level: IsolationLevel) -> None:
    assert run("def add(x, y): return x + y", level) == Execution("passed", "")


EXITS = {
    "at load, sys.exit": "import sys; sys.exit(0)",
    "at load, os._exit": "import os; os._exit(0)",
    "at load, raise": "raise SystemExit",
    "in the call, sys.exit": "import sys\ndef add(x, y): sys.exit(0)",
    "in the call, os._exit": "import os\ndef add(x, y): os._exit(0)",
    "in the call, SystemExit": "def add(x, y): raise SystemExit(0)",
    "in the call, KeyboardInterrupt": "def add(x, y): raise KeyboardInterrupt",
    "exit handler": "import atexit, os\natexit.register(os._exit, 0)\ndef add(x, y): exit(0)",
    "the signal of a CPU limit": "import os\ndef add(x, y): os._exit(152)",
    "abort": "import os\ndef add(x, y): os.abort()",
    "closed pipe": "import os\ndef add(x, y):\n    os.closerange(0, 64)\n    return x + y",
}


@every_level
@pytest.mark.parametrize("program", EXITS.values(), ids=EXITS.keys())
def test_leaving_early_is_wrong(level: IsolationLevel, program: str) -> None:
    assert run(program, level).status == "wrong"


EQUAL_TO_EVERYTHING = {
    base: f"class E({base}):\n"
    "    def __eq__(self, other): return True\n"
    "    def __ne__(self, other): return False\n"
    "    __hash__ = None\n"
    "def add(x, y): return E()"
    for base in ("object", "int", "str", "list", "float", "dict", "tuple")
}


@every_level
@pytest.mark.parametrize("program", EQUAL_TO_EVERYTHING.values(), ids=EQUAL_TO_EVERYTHING.keys())
def test_an_object_equal_to_everything_is_wrong(level: IsolationLevel, program: str) -> None:
    result = run(program, level)
    assert result.status == "wrong"
    assert "a value of type E" in result.detail


FORGERIES = {
    "a verdict on every descriptor": """
        import json, os
        def frame(message):
            body = json.dumps(message).encode()
            return len(body).to_bytes(4, "big") + body
        def add(x, y):
            for message in ({"status": "passed"}, {"passed": True}, {"value": True}):
                for descriptor in range(32):
                    try:
                        os.write(descriptor, frame(message))
                    except OSError:
                        pass
            return None
    """,
    "a verdict in print": """
        def add(x, y):
            print('{"status": "passed", "detail": ""}')
    """,
    "a frame too long": """
        import os
        def add(x, y):
            for descriptor in range(32):
                try:
                    os.write(descriptor, b"\\xff" * 64)
                except OSError:
                    pass
    """,
    "patched builtins": """
        import builtins, json, sys
        builtins.len = lambda value: 0
        builtins.isinstance = lambda value, kind: True
        builtins.AssertionError = Warning
        json.dumps = lambda *args, **kwargs: '{"value": true, "status": "passed"}'
        for name, module in list(sys.modules.items()):
            if name.startswith("programs"):
                module.pack = lambda value: {"iterator": []}
        def add(x, y): return None
    """,
    "a patched wire that accepts the object": """
        import sys
        class E:
            def __eq__(self, other): return True
        def add(x, y):
            for name, module in list(sys.modules.items()):
                if name.startswith("programs") and hasattr(module, "pack"):
                    module.pack = lambda value: {"__class__": "E", "pickle": "gASVAAAA"}
            return E()
    """,
}


@every_level
@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES.keys())
def test_forging_an_answer_is_wrong(level: IsolationLevel, program: str) -> None:
    assert run(program, level).status == "wrong"


@every_level
def test_prints_do_not_disturb_an_honest_answer(level: IsolationLevel) -> None:
    program = """
        import os, sys
        print("loading")
        def add(x, y):
            print({"value": 0})
            sys.stderr.write("noise")
            os.write(1, b"noise")
            return x + y
    """
    assert run(program, level).status == "passed"


SEARCHES = {
    "memory and frames": """
        import gc, sys
        pool = [repr(o)[:100000] for o in gc.get_objects() if isinstance(o, (str, dict, list))]
        frame = sys._getframe()
        while frame:
            pool += [repr(frame.f_locals), repr(frame.f_globals)[:100000]]
            frame = frame.f_back
        pool += [repr(vars(m))[:100000] for m in list(sys.modules.values()) if m]
    """,
    "argv and environment": """
        import os, sys
        pool = [repr(sys.argv), repr(sys.orig_argv), repr(dict(os.environ))]
    """,
    "proc": """
        import os
        pool = []
        try:
            pids = os.listdir("/proc")[:400]
        except OSError:
            pids = []
        for pid in ["self", "1", str(os.getppid())] + pids:
            for name in ("cmdline", "environ", "fd/0", "fd/3", "fd/4", "fd/5"):
                try:
                    fd = os.open("/proc/%s/%s" % (pid, name), os.O_RDONLY | os.O_NONBLOCK)
                    pool.append(os.read(fd, 100000).decode(errors="replace"))
                    os.close(fd)
                except OSError:
                    pass
    """,
}


@every_level
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_the_expected_value_is_nowhere_to_be_found(level: IsolationLevel, search: str) -> None:
    program = (
        "import re\n"
        "def number():\n" + textwrap.indent(textwrap.dedent(search), "    ") + "\n"
        "    found = re.findall('48151623' + '[0-9]+', ' '.join(pool))\n"
        "    if found:\n"
        "        return int(found[0])\n"
        "    raise RuntimeError('contained: %d texts' % len(pool))\n"
    )
    result = execute(SECRET_PROBLEM, program, level=level, limits=Limits(cpu_seconds=3))
    assert result.status == "wrong"
    assert "contained" in result.detail


def test_the_search_would_find_a_value_that_is_there() -> None:
    program = f"secret = '{SECRET}'\ndef number(): return int(secret)"
    result = execute(SECRET_PROBLEM, program, level=LEVELS[-1], limits=QUICK)
    assert result.status == "passed"


@containing(Hazard.READ_FILES)
def test_the_published_tests_cannot_be_read(level: IsolationLevel, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    for path in (dataset_path(), secret, Path("/etc/passwd"), Path("/proc/1/environ")):
        assert "contained" in attempt(f"open({str(path)!r}, 'rb').read(1)", level)


@containing(Hazard.CPU)
def test_an_endless_loop_that_ignores_signals_is_a_time_out(level: IsolationLevel) -> None:
    program = """
        import signal
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            try:
                while True: pass
            except BaseException:
                pass
    """
    with no_survivors():
        result = run(program, level)
    assert result == Execution("timeout", "over 1 s of CPU time")


@containing(Hazard.WALL)
def test_a_sleeper_is_a_time_out(level: IsolationLevel) -> None:
    program = "import time\ndef add(x, y): time.sleep(600)"
    started = time.monotonic()
    with no_survivors():
        result = run(program, level, Limits(cpu_seconds=1, wall_seconds=1.0))
    assert result == Execution("timeout", "over 1 s of wall time")
    assert time.monotonic() - started < 30


@containing(Hazard.MEMORY)
def test_a_memory_bomb_is_stopped(level: IsolationLevel) -> None:
    limits = Limits(cpu_seconds=5)
    detail = attempt("hold = [b'x' * (64 << 20) for _ in range(16)]", level, limits)
    assert "contained by MemoryError" in detail or "memory" in detail


@containing(Hazard.OUTPUT)
def test_a_gigabyte_of_output_goes_nowhere(level: IsolationLevel) -> None:
    program = """
        import sys
        def add(x, y):
            for _ in range(512):
                sys.stdout.write("x" * (1 << 20))
                sys.stderr.write("x" * (1 << 20))
            return None
    """
    before = psutil.Process().memory_info().rss
    assert run(program, level, Limits(cpu_seconds=10)).status == "wrong"
    assert psutil.Process().memory_info().rss - before < 50 << 20


@containing(Hazard.OUTPUT)
def test_a_huge_value_is_refused(level: IsolationLevel) -> None:
    result = run("def add(x, y): return 'x' * (3 << 20)", level)
    assert result == Execution(
        "wrong",
        "the program returned a value larger than 1048576 bytes, at: assert candidate(0, 1) == 1",
    )


@containing(Hazard.OUTPUT)
def test_files_without_end_are_stopped(level: IsolationLevel) -> None:
    program = """
        import time
        def add(x, y):
            for number in range(200):
                with open(str(number), "wb") as file:
                    file.write(b"x" * (1 << 20))
                time.sleep(0.02)
            return x + y
    """
    result = run(program, level, Limits(cpu_seconds=5))
    assert result == Execution("wrong", "over the limit of storage")


@containing(Hazard.OUTPUT)
def test_one_large_file_is_refused(level: IsolationLevel) -> None:
    assert "contained" in attempt("open('big', 'wb').write(b'x' * (8 << 20))", level)


@containing(Hazard.PROCESSES)
def test_a_fork_bomb_starts_nothing(level: IsolationLevel) -> None:
    with no_survivors():
        detail = attempt(
            """
            for _ in range(50):
                if os.fork() == 0:
                    time.sleep(3)
                    os._exit(0)
            """,
            level,
        )
    assert "contained" in detail


@containing(Hazard.PROCESSES)
def test_a_child_in_a_new_session_is_not_left(level: IsolationLevel) -> None:
    with no_survivors():
        detail = attempt(
            """
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
                os._exit(0)
            """,
            level,
        )
    assert "contained" in detail


@containing(Hazard.PROCESSES)
def test_another_program_cannot_be_started(level: IsolationLevel) -> None:
    assert "contained" in attempt("subprocess.run([sys.executable, '-c', ''])", level)
    assert "contained" in attempt("os.execv(sys.executable, ['x', '-c', ''])", level)


@every_level
def test_a_child_that_keeps_the_pipe_open_does_not_hang_the_run(level: IsolationLevel) -> None:
    program = """
        import os, time
        def add(x, y):
            if os.fork() == 0:
                time.sleep(20)
            os._exit(0)
    """
    started = time.monotonic()
    assert run(program, level).status == "wrong"
    assert time.monotonic() - started < 25


@containing(Hazard.WRITE_OUTSIDE)
def test_nothing_outside_is_changed(level: IsolationLevel, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    there = tmp_path / "there"
    there.write_text("kept")
    mode, stamp = there.stat().st_mode, there.stat().st_mtime_ns
    name, new = repr(str(there)), repr(str(tmp_path / "new"))
    for action in (
        f"open({new}, 'w').write('x')",
        f"open({name}, 'a').write('x')",
        f"os.truncate({name}, 0)",
        f"os.close(os.open({name}, os.O_RDONLY | os.O_TRUNC))",
        f"os.unlink({name})",
        f"os.rename({name}, {new})",
        f"os.link({name}, {new})",
        f"os.symlink({name}, {new})",
        f"os.mkdir({new})",
        f"os.chmod({name}, 0o666)",
        f"os.utime({name}, (0, 0))",
        f"os.setxattr({name}, 'user.x', b'x')",
    ):
        assert "contained" in attempt(action, level), action
    assert [there.read_text(), there.stat().st_mode] == ["kept", mode]
    assert there.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@every_level
def test_its_own_directory_can_be_written(level: IsolationLevel) -> None:
    program = """
        def add(x, y):
            with open("own", "w") as file:
                file.write(str(x + y))
            with open("own") as file:
                return int(file.read())
    """
    assert run(program, level).status == "passed"


@containing(Hazard.NETWORK)
def test_a_listener_on_loopback_is_not_reached(level: IsolationLevel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        connect = f"socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert "contained" in attempt(connect, level)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_listener_is_reached_without_containment() -> None:
    """The negative twin: at the level of limits only, the same attempt arrives."""
    level = next(level for level in LEVELS if level.name == "limits")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        port = listener.getsockname()[1]
        connect = f"socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert "HARM" in attempt(connect, level)
        listener.accept()[0].close()


@containing(Hazard.SIGNALS)
def test_no_other_process_is_signalled(level: IsolationLevel) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        # SIGCONT does its parent (this test) no harm, and needs the same permission.
        assert "contained" in attempt("os.kill(os.getppid(), signal.SIGCONT)", level)
        assert "contained" in attempt(f"os.kill({victim.pid}, signal.SIGKILL)", level)
        by_descriptor = f"""
            import fcntl
            reader, writer = os.pipe()
            fcntl.fcntl(reader, fcntl.F_SETOWN, {victim.pid})
            fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
            os.write(writer, b"x")
        """
        assert "contained" in attempt(by_descriptor, level)
        renice = f"os.setpriority(os.PRIO_PROCESS, {victim.pid}, 19)"
        assert "contained" in attempt(renice, level)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@every_level
def test_limits_cannot_be_raised(level: IsolationLevel) -> None:
    """As root too: the capability that would allow it is dropped."""
    action = """
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
        except ValueError:
            raise PermissionError
    """
    assert "contained" in attempt(action, level)


@every_level
def test_no_capability_is_left(level: IsolationLevel) -> None:
    """Asked of the kernel, since a root that lacks some of them would hide the defect."""
    program = """
        import ctypes, os
        def number():
            call = {"x86_64": 125, "aarch64": 90}[os.uname().machine]
            header = (0x20080522).to_bytes(4, "little") + bytes(4)
            sets = ctypes.create_string_buffer(24)
            assert ctypes.CDLL(None).syscall(call, header, sets) == 0
            return sets.raw[:12]
    """
    test = "def check(candidate):\n    assert candidate() == bytes(12)\n"
    problem = dataclasses.replace(SECRET_PROBLEM, test=test)
    done = execute(problem, textwrap.dedent(program), level=level, limits=QUICK)
    assert done == Execution("passed", "")


@every_level
def test_nothing_survives_the_death_of_the_run(level: IsolationLevel, tmp_path: Path) -> None:
    script = (
        "from evals.humaneval.execution import Limits, execute\n"
        "from evals.humaneval.problems import load_problems\n"
        "from evals.humaneval.sandbox import level_named\n"
        "problem = next(p for p in load_problems() if p.entry_point == 'add')\n"
        "print('started', flush=True)\n"
        "execute(problem, 'while True: pass', "
        f"level=level_named({level.name!r}), limits=Limits(cpu_seconds=30))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)}
    started = time.time()
    with no_survivors():
        run_process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
        )
        assert run_process.stdout is not None
        run_process.stdout.readline()
        deadline = time.monotonic() + 20
        while not _candidates_since(started) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert _candidates_since(started)
        run_process.kill()
        run_process.communicate()
