"""Ask every teacher what can be asked, until nothing is left: in waves, teachers side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from arcs.progress import Reporter
from arcs.teachers.asking import Answer, Asked, Question
from arcs.teachers.endpoint_teacher import EndpointTeacher
from arcs.teachers.plan import Wanted, questions
from arcs.teachers.replies import Replies
from arcs.teachers.roster import Roster
from arcs.teachers.stages import Stages


class Session:
    """What a run asks with, and what could not be had."""

    def __init__(
        self,
        roster: Roster,
        stages: Stages,
        replies: Replies,
        opened: Callable[[str], Asked],
        reporter: Reporter,
    ) -> None:
        """``opened``: a teacher by name, opened once."""
        self.roster, self.stages, self.replies, self.reporter = roster, stages, replies, reporter
        self._opened = opened
        self.failed: dict[str, str] = {}
        """Job -> why it has no answer. Not stored: it is asked again when the run goes on."""
        self.may_come: set[str] = set()
        """Of these, jobs that were not refused."""

    def records(self, label: str, records: Sequence[Wanted]) -> None:
        """Ask all stages of ``records``, each as soon as what it sees is there."""
        while True:
            ready = [
                (teacher, question)
                for teacher, question in questions(records, self.stages, self.roster, self.replies)
                if question.job not in self.failed
            ]
            if not ready:
                return
            names = sorted({question.job.partition("/")[2] for _, question in ready})
            self.wave(f"{label}: {', '.join(names)}", ready)

    def wave(self, label: str, ready: Sequence[tuple[str, Question]]) -> None:
        """Ask these questions, endpoints in threads of their own, our engines in this one.

        Raises UserError as the teachers; every answer that was given is stored by then.
        """
        by_teacher: dict[str, list[Question]] = {}
        for teacher, question in ready:
            by_teacher.setdefault(teacher, []).append(question)
        stop = threading.Event()
        with self.reporter.bar(label, len(ready), "answers") as bar:
            lock = threading.Lock()

            def advance() -> None:
                with lock:
                    bar.advance(1)

            self._ask(by_teacher, stop, advance)

    def _ask(
        self,
        by_teacher: Mapping[str, Sequence[Question]],
        stop: threading.Event,
        advance: Callable[[], None],
    ) -> None:
        def ask(name: str) -> None:
            def keep(question: Question, answer: Answer) -> None:
                self.replies.add(question, name, answer)
                advance()

            def fail(question: Question, reason: str, may_come: bool) -> None:
                self.failed[question.job] = reason
                if may_come:
                    self.may_come.add(question.job)
                advance()

            try:
                self._opened(name).answer(by_teacher[name], keep, fail, stop)
            except BaseException:
                stop.set()
                raise

        opened = {name: self._opened(name) for name in by_teacher}
        remote = [name for name, one in opened.items() if isinstance(one, EndpointTeacher)]
        with ThreadPoolExecutor(max(1, len(remote))) as pool:
            futures: list[Future[None]] = [pool.submit(ask, name) for name in remote]
            try:
                for name in sorted(opened.keys() - set(remote)):
                    ask(name)
                wait(futures)
            except BaseException:
                stop.set()
                wait(futures)
                raise
        for future in futures:
            future.result()
