#!/usr/bin/env python3
"""A caching proxy that freezes what builds fetch, so that two builds have the same inputs.

    freezer.py FOLDER       keeps bodies in FOLDER/bodies, and makes an authority FOLDER/ca.crt

Prints the port that it listens on, then serves until it is killed. What it has once fetched it
serves for a day, over HTTP as over HTTPS, where it answers with certificates of its own authority.
While FOLDER/frozen exists it fetches nothing: what it does not have is answered with 504. FOLDER/log
has a line for each request: `hit`, `fetch` or `miss`, the method and the address.
"""

import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

FOLDER = os.path.abspath(sys.argv[1])
BODIES = os.path.join(FOLDER, "bodies")
KEPT_HEADERS = ("content-type", "last-modified", "etag")
KEPT_SECONDS = 24 * 3600

# What of a request tells answers apart: PyPI and npm answer in the form that is asked for.
VARYING = ("accept",)

certificates = {}
certificates_lock = threading.Lock()
locks = {}
locks_lock = threading.Lock()
log_lock = threading.Lock()


def openssl(*arguments):
    subprocess.run(
        ("openssl",) + arguments, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextlib.contextmanager
def alone(name):
    """Against other proxies over the same folder."""
    with open(os.path.join(FOLDER, "lock-" + name), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_authority():
    with alone("ca"):
        if not os.path.exists(os.path.join(FOLDER, "ca.crt")):
            openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=freezer of the tests",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            )


def context_for(host):
    with certificates_lock:
        if host not in certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.TemporaryDirectory() as own:
                key, certificate = own + "/key", own + "/crt"
                openssl(
                    "req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-newkey", "ec",
                    "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "30", "-subj", "/CN=" + host[:60],
                    "-addext", "subjectAltName=DNS:" + host, "-addext", "basicConstraints=critical,CA:FALSE",
                )
                context.load_cert_chain(certificate, key)
            certificates[host] = context
        return certificates[host]


def log(what, method, url):
    with log_lock, open(os.path.join(FOLDER, "log"), "a") as file:
        file.write(f"{what} {method} {url}\n")


def lock_of(key):
    with locks_lock:
        return locks.setdefault(key, threading.Lock())


def fetch(method, url, headers, path):
    """Fetches an address into `path`.json and `path`; an answer of 404 is kept like any other."""
    request = urllib.request.Request(url, method=method)
    for name, value in headers.items():
        # Bodies are kept whole and uncompressed; the rest is the client's own affair.
        if name.lower() in VARYING + ("user-agent", "authorization"):
            request.add_header(name, value)
    request.add_header("Accept-Encoding", "identity")
    for attempt in range(4):
        try:
            answer = urllib.request.urlopen(request, timeout=120)
            break
        except urllib.error.HTTPError as error:
            answer = error
            if error.code < 500 and error.code != 429:
                break
        except OSError:
            if attempt == 3:
                raise
        time.sleep(1 + attempt)
    with tempfile.NamedTemporaryFile(dir=BODIES, delete=False) as file:
        shutil.copyfileobj(answer, file, 1 << 20)
    names = KEPT_HEADERS + (("content-length",) if method == "HEAD" else ())
    kept = {name: answer.headers[name] for name in names if answer.headers[name]}
    os.replace(file.name, path)
    with tempfile.NamedTemporaryFile("w", dir=BODIES, delete=False) as said:
        json.dump({"status": answer.status, "headers": kept, "url": url}, said)
    os.replace(said.name, path + ".json")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scheme_and_host = ""

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        host = self.path.rsplit(":", 1)[0]
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.wfile.flush()
        try:
            self.connection = context_for(host).wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.scheme_and_host = "https://" + self.path.removesuffix(":443")
        self.close_connection = False

    def answer(self):
        url = self.scheme_and_host + self.path
        body = int(self.headers.get("content-length") or 0)
        if body:
            self.rfile.read(body)
        varying = [(name, self.headers.get(name, "")) for name in VARYING]
        key = hashlib.sha256(json.dumps([self.command, url, varying]).encode()).hexdigest()
        path = os.path.join(BODIES, key)
        what = "hit"
        with lock_of(key), alone(key[:2]):
            try:
                fresh = time.time() - os.stat(path + ".json").st_mtime < KEPT_SECONDS
            except FileNotFoundError:
                fresh = False
            if not fresh:
                if os.path.exists(os.path.join(FOLDER, "frozen")):
                    log("miss", self.command, url)
                    self.send_error(504, "not frozen")
                    return
                what = "fetch"
                try:
                    fetch(self.command, url, self.headers, path)
                except OSError as error:
                    log("miss", self.command, url)
                    self.send_error(502, str(error)[:100].replace("\n", " "))
                    return
        log(what, self.command, url)
        with open(path + ".json") as file:
            kept = json.load(file)
        self.send_response(kept["status"])
        for name, value in kept["headers"].items():
            self.send_header(name, value)
        if self.command == "HEAD":
            self.end_headers()
        else:
            self.send_header("Content-Length", str(os.stat(path).st_size))
            self.end_headers()
            with open(path, "rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    do_GET = do_HEAD = answer

    def do_POST(self):
        # Nothing that a build needs is asked for so; npm's audits are.
        self.send_error(405, "not frozen")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that went away is no news."""


os.makedirs(BODIES, exist_ok=True)
make_authority()
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
