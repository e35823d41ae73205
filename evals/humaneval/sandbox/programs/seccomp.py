"""A system-call filter: no process or thread, no socket, nothing done to anyone else.

Everything a HumanEval answer has a use for stays allowed. Refused calls fail with EPERM, so
the answer sees an ordinary PermissionError. Numbers: the kernel's asm/unistd_64.h (x86_64)
and asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL_PROCESS, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16
_X32_BIT = 0x40000000

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class Call(NamedTuple):
    """Numbers of one system call; None where the architecture does not have it."""

    x86_64: int | None
    aarch64: int | None


DENIED: dict[str, Call] = {
    # starting processes, threads, programs
    "fork": Call(57, None),
    "vfork": Call(58, None),
    "clone": Call(56, 220),
    "clone3": Call(435, 435),
    "execve": Call(59, 221),
    "execveat": Call(322, 281),
    # network, and io_uring, which would go around this filter
    "socket": Call(41, 198),
    "socketpair": Call(53, 199),
    "io_uring_setup": Call(425, 425),
    "io_uring_enter": Call(426, 426),
    "io_uring_register": Call(427, 427),
    # other processes
    "kill": Call(62, 129),
    "tkill": Call(200, 130),
    "rt_sigqueueinfo": Call(129, 138),
    "rt_tgsigqueueinfo": Call(297, 240),
    "pidfd_send_signal": Call(424, 424),
    "pidfd_open": Call(434, 434),
    "pidfd_getfd": Call(438, 438),
    "ptrace": Call(101, 117),
    "process_vm_readv": Call(310, 270),
    "process_vm_writev": Call(311, 271),
    "process_madvise": Call(440, 440),
    "kcmp": Call(312, 272),
    "setpriority": Call(141, 140),
    "ioprio_set": Call(251, 30),
    "sched_setparam": Call(142, 118),
    "sched_setscheduler": Call(144, 119),
    "sched_setattr": Call(314, 274),
    "sched_setaffinity": Call(203, 122),
    "migrate_pages": Call(256, 238),
    "move_pages": Call(279, 239),
    # what Landlock does not restrict: metadata of files that are out of reach otherwise
    "chmod": Call(90, None),
    "fchmod": Call(91, 52),
    "fchmodat": Call(268, 53),
    "fchmodat2": Call(452, 452),
    "chown": Call(92, None),
    "lchown": Call(94, None),
    "fchown": Call(93, 55),
    "fchownat": Call(260, 54),
    "utime": Call(132, None),
    "utimes": Call(235, None),
    "futimesat": Call(261, None),
    "utimensat": Call(280, 88),
    "setxattr": Call(188, 5),
    "lsetxattr": Call(189, 6),
    "fsetxattr": Call(190, 7),
    "removexattr": Call(197, 14),
    "lremovexattr": Call(198, 15),
    "fremovexattr": Call(199, 16),
    "setxattrat": Call(463, 463),
    "removexattrat": Call(466, 466),
    "mknod": Call(133, None),
    "mknodat": Call(259, 33),
    "name_to_handle_at": Call(303, 264),
    "open_by_handle_at": Call(304, 265),
    # memory and queues that outlive the process or escape its limits
    "memfd_create": Call(319, 279),
    "memfd_secret": Call(447, 447),
    "shmget": Call(29, 194),
    "shmat": Call(30, 196),
    "semget": Call(64, 190),
    "msgget": Call(68, 186),
    "mq_open": Call(240, 180),
    # the machine
    "mount": Call(165, 40),
    "umount2": Call(166, 39),
    "pivot_root": Call(155, 41),
    "chroot": Call(161, 51),
    "unshare": Call(272, 97),
    "setns": Call(308, 268),
    "open_tree": Call(428, 428),
    "move_mount": Call(429, 429),
    "fsopen": Call(430, 430),
    "fsconfig": Call(431, 431),
    "fsmount": Call(432, 432),
    "fspick": Call(433, 433),
    "mount_setattr": Call(442, 442),
    "bpf": Call(321, 280),
    "perf_event_open": Call(298, 241),
    "userfaultfd": Call(323, 282),
    "add_key": Call(248, 217),
    "request_key": Call(249, 218),
    "keyctl": Call(250, 219),
    "personality": Call(135, 92),
    "init_module": Call(175, 105),
    "finit_module": Call(313, 273),
    "delete_module": Call(176, 106),
    "kexec_load": Call(246, 104),
    "kexec_file_load": Call(320, 294),
    "reboot": Call(169, 142),
    "swapon": Call(167, 224),
    "swapoff": Call(168, 225),
    "acct": Call(163, 89),
    "settimeofday": Call(164, 170),
    "clock_settime": Call(227, 112),
    "adjtimex": Call(159, 171),
    "clock_adjtime": Call(305, 266),
    "sethostname": Call(170, 161),
    "setdomainname": Call(171, 162),
    "syslog": Call(103, 116),
    "quotactl": Call(179, 60),
    "fanotify_init": Call(300, 262),
}
OWN_PROCESS_ONLY: dict[str, Call] = {
    "tgkill": Call(234, 131),  # how abort() and raise() signal oneself
    "prlimit64": Call(302, 261),
}
"""Allowed where the first argument is 0 or this process."""
DENIED_COMMANDS: dict[str, tuple[Call, tuple[int, ...]]] = {
    # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others through a descriptor
    "fcntl": (Call(72, 25), (8, 10, 15)),
    # FIOSETOWN, SIOCSPGRP (the same), TIOCSTI (typing into a terminal)
    "ioctl": (Call(16, 29), (0x8901, 0x8902, 0x5412)),
}
"""Refused where the second argument is one of these."""


def install() -> None:
    """Filter this process from now on, irrevocably.

    Raises:
        OSError: the kernel or the architecture does not support it.
    """
    import ctypes

    program = filter_program(os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count of 8-byte instructions and a pointer to them
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [(_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head)]
    for option, second, third in arguments:
        if libc.prctl(option, second, third, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def filter_program(machine: str, own_pid: int) -> bytes:
    """The filter as classic BPF instructions (struct sock_filter, 8 bytes each).

    Raises:
        OSError: no system-call numbers are known for this machine.
    """
    if machine not in ARCHITECTURES:
        raise OSError(38, f"no system-call table for {machine}")
    code = [
        _op(_LOAD, _ARCH_OFFSET),
        *_unless_equal(ARCHITECTURES[machine], _KILL_PROCESS),
        _op(_LOAD, _NR_OFFSET),
        _op(_AT_LEAST, _X32_BIT, 0, 1),
        _op(_RETURN, _EPERM),
    ]
    for call in DENIED.values():
        code += _when_call(call, machine, [_op(_RETURN, _EPERM)])
    for call in OWN_PROCESS_ONLY.values():
        code += _when_call(call, machine, _first_argument_in((0, own_pid)))
    for call, commands in DENIED_COMMANDS.values():
        code += _when_call(call, machine, _second_argument_not_in(commands))
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _unless_equal(value: int, result: int) -> list[bytes]:
    return [_op(_EQUAL, value, 1, 0), _op(_RETURN, result)]


def _when_call(call: Call, machine: str, body: list[bytes]) -> list[bytes]:
    """``body`` (which always returns) for this call; the accumulator holds the number."""
    number = getattr(call, machine)
    return [] if number is None else [_op(_EQUAL, number, 0, len(body)), *body]


def _first_argument_in(values: tuple[int, ...]) -> list[bytes]:
    """Allow if the low half of argument 0 is listed: process ids are 32 bits."""
    tests = [_op(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_op(_LOAD, _ARGS_OFFSET), *tests, _op(_RETURN, _EPERM), _op(_RETURN, _ALLOW)]


def _second_argument_not_in(values: tuple[int, ...]) -> list[bytes]:
    """Refuse if the low half of argument 1 is listed: commands are 32 bits."""
    tests = [_op(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    load = _op(_LOAD, _ARGS_OFFSET + 8)
    return [load, *tests, _op(_RETURN, _ALLOW), _op(_RETURN, _EPERM)]
