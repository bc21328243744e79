"""Run a command as on a processor without AMX, whose products of bytes are those of VNNI.

    python benchmarks/without_amx.py python benchmarks/peers.py --work DIR --profiles --long 30

The kernel is made to refuse the command the use of AMX's registers, for which libraries have to ask it (seccomp), and
/proc/cpuinfo shows it none (a bind mount that nobody else sees). So ONNX Runtime and oneDNN, faster-whisper's library,
do without. x86-64 only; as root, or where users may have namespaces of their own.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import struct
import sys
import tempfile

from whisper_factory.backends.onnx_graph.runtime import CPUINFO, processor_flags

# linux/sched.h, mount.h, prctl.h, seccomp.h, and x86's asm/prctl.h and asm/unistd_64.h
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # with EPERM
ARCH_PRCTL, REQUEST_PERMISSION = 158, 0x1023
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of linux/bpf_common.h, for words, constants
CALL, FIRST_ARGUMENT = 0, 16  # where they lie in seccomp's data

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def check(result: int, what: str) -> None:
    """Raise OSError if a call failed."""
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def hide() -> None:
    """Show this process and its children a /proc/cpuinfo without AMX."""
    check(libc.unshare(CLONE_NEWNS | (0 if os.geteuid() == 0 else CLONE_NEWUSER)), "unshare")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    with tempfile.NamedTemporaryFile("w", suffix=".cpuinfo") as shown:
        shown.write(re.sub(r" amx_\w+", "", processor_flags()))
        shown.flush()
        check(libc.mount(shown.name.encode(), bytes(CPUINFO), None, MS_BIND, None), "mount")


def refuse() -> None:
    """Have the kernel refuse this process and its children the permission to use AMX."""
    steps = ((LOAD, 0, 0, CALL), (JUMP_IF_EQUAL, 0, 3, ARCH_PRCTL), (LOAD, 0, 0, FIRST_ARGUMENT),
             (JUMP_IF_EQUAL, 0, 1, REQUEST_PERMISSION), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW))
    program = Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    check(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0), "prctl")


def main() -> None:
    """Become the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="with its arguments")
    command: list[str] = parser.parse_args(sys.argv[1:2]).command + sys.argv[2:]
    if platform.machine() != "x86_64":
        parser.error("AMX is x86-64's")
    hide()
    refuse()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
