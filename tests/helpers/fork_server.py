"""Starts Python programs in milliseconds: forks a process that has imported what takes them seconds to import.

    python tests/helpers/fork_server.py FD    # FD: a socket, of which `ForkedProcess` has the other end

What comes out is a real process with a session, a folder, an environment, standard streams, signals and an exit status
of its own. What Python and the libraries read once, at their start, it has from the server; `processes.py` knows for
which environment variables that matters.
"""

import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def start_server(environment: dict[str, str]) -> socket.socket:
    """Starts a server, which ends with this process; gives the end of its socket that `ForkedProcess` takes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
        null = subprocess.DEVNULL
        subprocess.Popen(command, env=environment, stdin=null, stdout=null, pass_fds=[theirs.fileno()])
    return ours


class ForkedProcess(subprocess.Popen[str]):
    """A Popen whose process a server forks; `args` are those of `program.run`.

    It is a child of this process nevertheless: the server's own child, which forks it, ends at once, and orphans
    become children of the nearest "subreaper" above them (prctl(2)).
    """

    def __init__(self, server: socket.socket, request: dict[str, Any], **options: Any) -> None:
        self._server, self._request = server, request
        super().__init__(request["command"], **options)

    def _execute_child(self, *options: Any) -> None:
        """Popen's own hook for starting the program."""
        pipes = options[10:16]  # child's end and ours of standard input, output and error; -1 where inherited
        child_ends = [end if end != -1 else own for own, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        _adopt_orphans(True)
        socket.send_fds(self._server, [json.dumps(self._request).encode()], child_ends)
        self.pid = int(self._server.recv(32))
        _adopt_orphans(False)  # what a killed program leaves behind belongs to the system
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _adopt_orphans(wanted: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def serve(requests: socket.socket) -> dict[str, Any]:
    """Forks a process for each request until nobody is left to ask; returns in those, with their request."""
    while True:
        message, streams, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            raise SystemExit
        read_end, write_end = os.pipe()
        parent = os.fork()
        if parent == 0:
            if os.fork():
                os._exit(0)
            os.setsid()
            os.write(write_end, str(os.getpid()).encode())
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for descriptor in (*streams, read_end, write_end, requests.detach()):
                os.close(descriptor)
            return json.loads(message)
        os.waitpid(parent, 0)  # from now on the new process belongs to whoever asked for it
        requests.send(os.read(read_end, 32))
        for descriptor in (*streams, read_end, write_end):
            os.close(descriptor)


def main() -> None:
    """The server; and each program, once it is forked."""
    import program

    import hp_lightning.training.fit  # noqa: F401  PyTorch, Lightning, TensorBoard, Hydra and nearly all of the package

    assert len(os.listdir("/proc/self/task")) == 1, "of several threads, a fork takes one along"
    gc.freeze()  # for good: a collection, as at the end of a program, would have to copy all that is shared
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # anew, for what they are now: pipes, files
        old = getattr(sys, name)
        line = 1 if name == "stderr" else -1
        setattr(sys, name, open(old.fileno(), mode, line, old.encoding, old.errors, closefd=False))  # noqa: SIM115
    program.run(request["command"], request["stop"])


if __name__ == "__main__":
    main()
