"""`roundhouse` with a pod's DNS: `python named.py PORT serve CONFIG`.

Names of the cluster are asked of the name server on that port of loopback, anew each time, as a
headless Service's are; everything else is the system's. A system's own resolver knows port 53 only.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import dns.message
import dns.query
import dns.rdatatype

PORT = int(sys.argv.pop(1))
_real = socket.getaddrinfo


def look_up(host: Any, port: Any, *args: Any, **more: Any) -> Any:
    if not str(host).endswith(".svc"):
        return _real(host, port, *args, **more)
    question = dns.message.make_query(f"{host}.", dns.rdatatype.A)
    answer = dns.query.udp(question, "127.0.0.1", port=PORT, timeout=10)
    found = [record.address for section in answer.answer for record in section]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return [(*kind, (address, port or 0)) for address in found]


if __name__ == "__main__":
    socket.getaddrinfo = look_up
    from server.cli import main

    main()
