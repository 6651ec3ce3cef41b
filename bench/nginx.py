"""nginx as a reverse proxy: one worker, connections kept alive on both sides, nothing logged."""

from __future__ import annotations

import socket
from pathlib import Path

from bench.machine import Child, accepts, program, wait_until

# One process, so that its CPU time is that of one pid. The numbers of requests are out of reach of any run: their
# defaults would make nginx reconnect in the middle of it.
_CONFIG = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream behind {{
        server 127.0.0.1:{upstream_port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def start(directory: Path, upstream_port: int, on: set[int]) -> tuple[Child, int]:
    """Starts it with its files in `directory`; returns it and its port."""
    path = program("nginx")
    port = _free_port()
    config = directory / "nginx.conf"
    config.write_text(_CONFIG.format(directory=directory, upstream_port=upstream_port, port=port))
    child = Child([path, "-p", str(directory), "-e", "stderr", "-c", str(config)], on)
    try:
        wait_until("nginx did not start", lambda: accepts(port), child)
    except BaseException:
        child.close()
        raise
    return child, port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
