"""The tools that the benches run, the registries and images that they run on, and the tables of what
they took."""

import contextlib
import glob
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
WHEELS = ("torch==2.15.0", "nvidia-cudnn-cu12==9.28.0.42", "nvidia-cublas-cu12==12.9.3.13")
DONE = "the step is done"


# What each command took that was waited for: CPU seconds and the largest of its processes in MB.
USED = []


def wait(process):
    """Waits for a process, notes what it and its children took, and returns its status."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    USED.append((used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6))
    return process.returncode


def run(*command, **options):
    wanted = options.pop("stdout", None)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out if wanted else subprocess.DEVNULL, stderr=err, **options)
        if wait(process) != 0:
            err.seek(0)
            sys.exit(f"{' '.join(map(str, command))}: {process.returncode}\n{err.read().decode(errors='replace')[-2000:]}")
        out.seek(0)
        return out.read()


def output(*command):
    return run(*command, stdout=subprocess.PIPE).decode().strip()


class Clock:
    """Seconds of a block of code, and what the commands in it took."""

    def __enter__(self):
        self.start = time.monotonic()
        self.first = len(USED)
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.start
        self.cpu = sum(cpu for cpu, _ in USED[self.first :])
        self.memory = max((memory for _, memory in USED[self.first :]), default=0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def registry(folder):
    """A docker-registry on loopback that keeps its blobs in a folder; yields host:port."""
    port = free_port()
    os.makedirs(folder, exist_ok=True)
    config = os.path.join(folder, "config.yml")
    with open(config, "w") as file:
        file.write(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: bench}}\n"
        )
    server = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def files(folder):
    """A web server of a folder on loopback; yields its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, str(port := free_port())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def archive(cache):
    """The caching proxy; yields the variables that lead to it."""
    folder = os.path.join(cache, "archive")
    os.makedirs(folder, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, os.path.join(TOP, "tests/support/freezer.py"), folder], stdout=subprocess.PIPE
    )
    port = server.stdout.readline().decode().strip()
    bundle = os.path.join(folder, "bundle.crt")
    with open(bundle, "wb") as file:
        for part in (os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), folder + "/ca.crt"):
            with open(part, "rb") as source:
                file.write(source.read())
    proxy = f"http://127.0.0.1:{port}"
    try:
        yield {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "127.0.0.1,localhost", "SSL_CERT_FILE": bundle}
    finally:
        server.kill()
        server.wait()


class Ours:
    """ocibuild with a store of its own."""

    name = "ocibuild"

    def __init__(self, work):
        self.folder = tempfile.mkdtemp(prefix="ocibuild-", dir=work)
        self.binary = os.environ.get("OCIBUILD_BIN", os.path.join(TOP, "target/release/ocibuild"))

    def command(self, *line):
        return [self.binary, "--store", os.path.join(self.folder, "store"), *line]

    def run(self, *line, **options):
        return run(*self.command(*line), cwd=self.folder, **options)

    def write(self, path, text):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def timed_build(self, *line):
        """Builds; returns the clock of all of it and the seconds of what came after the step."""
        step = None
        said = []
        with Clock() as whole:
            process = subprocess.Popen(
                self.command("--json", *line), cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for event in process.stderr:
                said.append(event)
                if DONE.encode() in event and b'"output"' in event:
                    step = time.monotonic()
            status = wait(process)
        if status != 0:
            sys.exit(b"".join(said[-20:]).decode())
        return whole, whole.start + whole.seconds - (step or whole.start)

    def close(self):
        shutil.rmtree(self.folder)


class Containers:
    """The peers that share a storage."""

    def __init__(self, work):
        self.folder = tempfile.mkdtemp(prefix="containers-", dir=work)
        conf = os.path.join(self.folder, "storage.conf")
        with open(conf, "w") as file:
            file.write(
                f'[storage]\ndriver = "overlay"\nrunroot = "{self.folder}/run"\ngraphroot = "{self.folder}/graph"\n'
            )
        self.environment = dict(
            os.environ, CONTAINERS_STORAGE_CONF=conf, BUILDAH_ISOLATION="chroot", TMPDIR=self.folder
        )

    def run(self, *command, environment=(), **options):
        return run(*command, env={**self.environment, **dict(environment)}, cwd=self.folder, **options)

    def push(self, compression, image, target):
        # Without a new format's name buildah may send again what an earlier push of it made.
        self.run(
            "buildah", "push", "-q", "--tls-verify=false", "--format", "oci", "--compression-format", compression, image, target
        )

    def close(self):
        subprocess.run(["umount", "-R", os.path.join(self.folder, "graph/overlay")], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder)


class Table:
    """What each tool took, round by round."""

    def __init__(self):
        self.rows = {}
        self.notes = []

    def add(self, what, tool, took):
        """Notes a clock's row, or bare seconds."""
        seconds, used = (took.seconds, f"{took.cpu:8.2f} s CPU {took.memory:6.0f} MB") if isinstance(took, Clock) else (took, "")
        print(f"{what:34} {tool:40} {seconds:8.2f} s {used}", flush=True)
        self.rows.setdefault(what, {}).setdefault(tool, []).append(took)

    def note(self, text):
        """Says once what the reader of a table should know."""
        if text not in self.notes:
            print(text, flush=True)
            self.notes.append(text)

    def markdown(self):
        lines = []
        for what, tools in self.rows.items():
            seconds = {
                tool: [took.seconds if isinstance(took, Clock) else took for took in rounds] for tool, rounds in tools.items()
            }
            clocks = {tool: [took for took in rounds if isinstance(took, Clock)] for tool, rounds in tools.items()}
            used = any(clocks.values())
            lines += ["", f"## {what}", "", "| tool | median s | all rounds | ocibuild / tool |" + (" CPU s | largest process MB |" if used else "")]
            lines.append("|---|---|---|---|" + ("---|---|" if used else ""))
            ours = statistics.median(seconds["ocibuild"]) if "ocibuild" in tools else None
            for tool, each in seconds.items():
                median = statistics.median(each)
                ratio = f"{ours / median:.2f}" if ours and tool != "ocibuild" else ""
                line = f"| {tool} | {median:.2f} | {' '.join(f'{value:.2f}' for value in each)} | {ratio} |"
                if clocks[tool]:
                    cpu = statistics.median(clock.cpu for clock in clocks[tool])
                    line += f" {cpu:.1f} | {max(clock.memory for clock in clocks[tool]):.0f} |"
                elif used:
                    line += " | |"
                lines.append(line)
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines) + "\n"


def layers(host, name):
    """The layers of an image in a registry, as its manifest has them."""
    accept = ", ".join(
        f"application/vnd.{kind}+json"
        for kind in ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.v2")
    )

    def get(reference):
        request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{reference}", headers={"Accept": accept})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    manifest = get("latest")
    if "manifests" in manifest:
        manifest = get(manifest["manifests"][0]["digest"])
    return manifest["layers"]


def tree(cache):
    """The wheels unpacked, as one plain tar that a step fetches; made once."""
    path = os.path.join(cache, "tree")
    tar = os.path.join(path, "tree.tar")
    if not os.path.exists(tar):
        wheels = os.path.join(cache, "wheels")
        run(
            sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, *WHEELS,
        )
        unpacked = os.path.join(path, "unpacked")
        os.makedirs(unpacked, exist_ok=True)
        for wheel in sorted(glob.glob(wheels + "/*.whl")):
            with zipfile.ZipFile(wheel) as archive_:
                archive_.extractall(unpacked)
        run("tar", "-C", unpacked, "-cf", tar + ".partial", ".")
        shutil.rmtree(unpacked)
        os.rename(tar + ".partial", tar)
    return path


def tiny(cache):
    """A root file system of busybox."""
    path = os.path.join(cache, "tiny.tar")
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(root + "/bin")
            os.makedirs(root + "/etc")
            for folder in ("tmp", "proc", "sys", "dev", "opt"):
                os.makedirs(f"{root}/{folder}")
            shutil.copy(shutil.which("busybox"), root + "/bin/busybox")
            for applet in output("busybox", "--list").split():
                if applet != "busybox":
                    os.symlink("busybox", f"{root}/bin/{applet}")
            with open(root + "/etc/passwd", "w") as file:
                file.write("root:x:0:0::/root:/bin/sh\n")
            with open(root + "/etc/os-release", "w") as file:
                file.write("ID=tiny\n")
            run("tar", "-C", root, "--owner=0", "--group=0", "-cf", path, ".")
    return path


def large_image(work, cache, host, compression):
    """Pushes an image with a layer of 3 GB as buildah makes it; returns what its large layer has."""
    tool = Containers(work)
    tool.run("buildah", "from", "--name", "work", "scratch")
    tool.run("buildah", "add", "-q", "work", tiny(cache), "/")
    tool.run("buildah", "add", "-q", "work", tree(cache) + "/tree.tar", "/opt")
    tool.run("buildah", "commit", "-q", "work", "tree")
    tool.push(compression, "tree", f"docker://{host}/tree")
    tool.close()
    return check(host, "buildah", compression)


def check(host, tool, compression):
    """Has the large layer be of the compression that was asked for, since a tool may keep what it has;
    returns what it has."""
    layer = max(layers(host, "tree"), key=lambda layer: layer["size"])
    if compression not in layer["mediaType"]:
        sys.exit(f"{tool} pushed {layer['mediaType']} where {compression} was asked for")
    return f"{tool}'s {compression} layer has {layer['size']:,} bytes"


def unmount_below(folder):
    """Unmounts what a tool that failed may have left."""
    with open("/proc/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    for point in reversed(points):
        if point.startswith(folder + "/"):
            subprocess.run(["umount", point], check=False)


def machine(started, load, rounds):
    """The head of a result: when, on what, with which versions."""
    first = lambda text: text.splitlines()[0]
    versions = [
        f"ocibuild {output('git', '-C', TOP, 'describe', '--always', '--dirty')}",
        *(first(output(name, "--version")) for name in ("buildah", "podman", "skopeo", "umoci", "docker-registry")),
    ]
    cores = len(os.sched_getaffinity(0))
    with open("/proc/cpuinfo") as text:
        model = next(line.split(":")[1].strip() for line in text if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"# {started:%Y-%m-%d %H:%M} UTC\n\n{cores} cores ({model}), {memory:.0f} GB, Linux {os.uname().release}, "
        f"load {load:.1f} at the start; {rounds} rounds.\n" + "; ".join(versions) + ".\n"
    )
