"""A private PostgreSQL from the machine's own package: one server a session, one fresh database a test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

PASSWORD = "opensesame"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `user` may do everything, with PASSWORD."""

    port: int
    user: str = "hwnas"

    def url(self, database: str, *, user: str | None = None, password: str = PASSWORD) -> str:
        return f"postgresql://{user or self.user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, *, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]  # psycopg wants literals; these are ours


def binaries() -> Path:
    """Folder of `initdb` and `postgres`; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'hwnas[postgres]'")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    on_path = shutil.which("initdb")
    folders += [Path(on_path).resolve().parent] if on_path else []
    found = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if not found or not shutil.which("setpriv"):
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
    return found[-1]


@contextmanager
def running() -> Iterator[Server]:
    """A server of its own in a temporary folder, gone at the end, or with this process however that ends."""
    programs = binaries()
    # not pytest's temporary folder: only its owner may enter that, and the server does not run as root
    folder = Path(tempfile.mkdtemp(prefix="hwnas-postgresql-"))
    data, password = folder / "data", folder / "password"
    password.write_text(PASSWORD)
    become: list[str] = []
    if os.geteuid() == 0:  # initdb refuses
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        group = pwd.getpwnam(user).pw_gid
        become = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        for path in (folder, password):
            os.chown(path, pwd.getpwnam(user).pw_uid, group)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(probe.getsockname()[1])
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        subprocess.run(
            [
                *("setpriv", *become, programs / "initdb", "-D", data, "-U", server.user, "-E", "UTF8"),
                *("--no-sync", f"--pwfile={password}", "--auth=scram-sha-256"),
            ],
            check=True,
            capture_output=True,
            env=environment,
            cwd=folder,
        )
        settings = {"port": server.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder}
        process = subprocess.Popen(
            ["setpriv", *become, "--pdeathsig", "INT", programs / "postgres", "-D", data]
            + [text for name, value in {**settings, "fsync": "off"}.items() for text in ("-c", f"{name}={value}")],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("w"),
            env=environment,
            cwd=folder,
        )
        try:
            _await(server, process, folder / "log")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # a fast end: clients need not leave first
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            server.run("SELECT 1")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: Server) -> Iterator[str]:
    """URL of an empty database."""
    name = f"test_{uuid4().hex}"
    postgresql_server.run(f"CREATE DATABASE {name}")
    yield postgresql_server.url(name)
    postgresql_server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a table or a journal may be kept: every test that asks for it runs on both databases."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path / 'folder' / 'latency.sqlite'}"
