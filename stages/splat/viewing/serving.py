"""Where a viewer is served, and what its user is told."""

import os
import socket

from stages.run.errors import UserError

_PORTS = range(1, 65536)


def check_address(host: str, port: int) -> None:
    """Raise UserError for a port that no machine has, or a host that is not this one."""
    if port not in _PORTS:
        raise UserError("--port", str(port), expected="1 to 65535")
    try:
        family, *_ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.create_server((host, 0), family=family):
            pass
    except OSError as error:
        raise UserError(
            "--host",
            f"{host!r} is no address of this machine ({error.strerror or error})",
            expected="127.0.0.1, or 0.0.0.0 to let other machines in",
        ) from error


def address_lines(name: str, port: int) -> list[str]:
    """The address of a viewer and, on another machine than the user's, how to reach it."""
    lines = [f"{name}: http://localhost:{port}"]
    node = os.environ.get("SLURMD_NODENAME")
    if node or "SSH_CONNECTION" in os.environ:
        there, jump = node or os.uname().nodename, "-J LOGIN_NODE " if node else ""
        lines.append(f"from your own machine: ssh -L {port}:localhost:{port} {jump}{there}")
    return lines
