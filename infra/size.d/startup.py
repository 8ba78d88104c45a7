"""Measures how a Lambda binary starts: infra/size runs it, `startup.py BINARY` prints `COLD WARM IDLE`.

COLD, WARM  milliseconds from exec to the first GET of the runtime API's invocation/next, median of RUNS; COLD is `-` where the
            binary cannot be put out of the page cache (a file system in memory)
IDLE        bytes of resident memory while it waits for its first event

The runtime API is a server in here, on a loopback port of its own; it never hands out an event. The binary runs in an empty folder with
this process's environment and AWS_LAMBDA_RUNTIME_API.
"""

import ctypes
import mmap
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUNS = 5
READY_WITHIN = 30.0  # seconds
SETTLES_IN = 1.0  # seconds from ready to idle
LOG_SHOWN = 4000  # bytes
NEXT = "/2018-06-01/runtime/invocation/next"


class RuntimeApi(ThreadingHTTPServer):
    """Tells through `news` when the binary is ready (the time) or what it reports instead (a text)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Request)
        self.news = queue.Queue()
        self.closing = threading.Event()


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        now = time.perf_counter()
        if self.path == NEXT:
            self.server.news.put(now)
            self.server.closing.wait()
            self.close_connection = True
        else:
            self.refuse("")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.refuse(body.decode(errors="replace"))

    def refuse(self, body):
        self.server.news.put(f"it asked for {self.command} {self.path} {body}".strip())
        self.send_error(404)

    def log_message(self, *_):
        pass


@contextmanager
def runtime_api():
    with RuntimeApi() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()


@contextmanager
def started(binary, port, log):
    """The process and the time before its exec; its whole group is killed at the end."""
    environment = {**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [binary], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process, began
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def wait_until_ready(process, server, began):
    while time.perf_counter() - began < READY_WITHIN:
        try:
            news = server.news.get(timeout=0.05)
        except queue.Empty:
            if process.poll() is not None:
                raise RuntimeError(f"it ended with {process.returncode} before it was ready") from None
            continue
        if isinstance(news, str):
            raise RuntimeError(f"before it was ready {news}")
        return news
    raise RuntimeError(f"it was not ready within {READY_WITHIN:.0f} s")


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("it ended while it was idle")


def run(binary, settle=0.0):
    """Seconds from exec to ready, resident bytes `settle` seconds later."""
    with tempfile.TemporaryFile() as log:
        try:
            with runtime_api() as server, started(binary, server.server_port, log) as (process, began):
                ready = wait_until_ready(process, server, began)
                time.sleep(settle)
                return ready - began, resident(process.pid)
        except RuntimeError as error:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_SHOWN))
            sys.exit(f"{log.read().decode(errors='replace')}{binary}: {error}; what it printed is above")


def resident_pages(file, size):
    """Pages of a file that are in the page cache. A read that must not block (RWF_NOWAIT) would tell too, but it starts read-ahead."""
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    with mmap.mmap(file, size, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), resident)
        del first  # a mapping that is pointed to cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in resident)


def evict(path):
    """Puts a file out of the page cache; False where that cannot be done, or cannot be seen to be."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # pages that are not written yet would stay
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return resident_pages(file, os.fstat(file).st_size) == 0
    except OSError:
        return False
    finally:
        os.close(file)


def median_ms(seconds):
    return f"{statistics.median(seconds) * 1000:.0f}" if seconds else "-"


def main():
    binary = os.path.abspath(sys.argv[1])
    cold = [run(binary)[0] for _ in range(RUNS) if evict(binary)]
    run(binary)  # to fill the page cache, where nothing was cold
    warm = [run(binary)[0] for _ in range(RUNS)]
    print(median_ms(cold), median_ms(warm), run(binary, settle=SETTLES_IN)[1])


main()
