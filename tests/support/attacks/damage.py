"""Damaged files of every format: refused in one line or read as they were, in little memory.

Run as a program, it damages files and reads them in its own process, so that its peak memory is
that of the readers.
"""

import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from attacks.common import ENVIRONMENT, Tally, write_data
from homework.page import read_run, write_report
from homework.runs import session

import minidl
from minidl.data import cache
from minidl.data.readers import read_idx
from minidl.grid import folder as store
from minidl.grid.points import Grid
from minidl.grid.runner import run as run_grid
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

LIMIT = 300_000  # kilobytes
LONGEST = 5.0  # seconds of the processor


def course(folder):
    return write_data(folder) / "set.npz"


def read_course(path):
    return minidl.load_dataset(path).checksum()


def idx(folder):
    x = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + np.array(x.shape, ">u4").tobytes()
    (folder / "x.gz").write_bytes(gzip.compress(head + x.tobytes()))
    return folder / "x.gz"


def read_images(path):
    return zlib.crc32(read_idx(path, 3).tobytes())


def train(a):
    return {"curve": [a * 0.1] * 20}


def lines(folder):
    run_grid(Grid(a=[1, 2, 3]), train, out=folder, progress=False)
    return folder / "results.jsonl"


def read_lines(path):
    """A last line that is cut is left out, so fewer results are right too."""
    good = {f"a-{a}": {"curve": [a * 0.1] * 20} for a in (1, 2, 3)}
    return all(good.get(r.id) == r.values for r in store.read(path))


def record(folder):
    lines(folder)
    return folder / "grid.json"


def read_record(path):
    results = run_grid(Grid(a=[1, 2, 3]), train, out=path.parent, progress=False)
    return [r.values for r in results]


def cached(folder):
    minidl.load_letters(30, 10, 10)
    return cache.cache_folder() / "letters-v2-seed0-train-30.npy"


def read_cached(path):
    """Pixels have no checksum; a damaged header must not be believed."""
    return minidl.load_letters(30, 10, 10).train.x.shape


X, Y = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), np.resize([0, 1, 2], 40)


def network(seed):
    return minidl.Sequential(
        minidl.Linear(4, 5), minidl.Dropout(0.3), minidl.Linear(5, 3), rng=seed
    )


def go_on(path, seed):
    """Train two epochs, or read what such a training has left; refused, nothing may have changed."""
    model, order = network(seed), np.random.Generator(np.random.MT19937(0))
    optimizer, before = minidl.Adam(model), (model.state_dict(), order.bit_generator.state)
    options = {
        "epochs": 2,
        "batch_size": 8,
        "rng": order,
        "checkpoint": minidl.Checkpoint(path, resume=True),
    }
    try:
        history = minidl.fit(
            model, minidl.Dataset((X, Y)), minidl.CrossEntropy(), optimizer, **options
        )
    except ValueError:
        np.testing.assert_equal((model.state_dict(), order.bit_generator.state), before)
        assert optimizer.steps == 0
        raise
    return model.theta.tobytes(), optimizer.steps, [r.to_dict() for r in history]


def run_file(folder):
    go_on(folder / "run.npz", 0)
    return folder / "run.npz"


def read_run_file(path):
    return go_on(path, 1)


def model_file(folder):
    minidl.save(folder / "model.npz", network(0))
    return folder / "model.npz"


def read_model(path):
    return minidl.load(path)(X).tobytes()


def tensors(folder):
    minidl.safetensors.save(folder / "model.safetensors", network(0))
    return folder / "model.safetensors"


def read_tensors(path):
    """There is no checksum: other numbers are not noticed."""
    model = network(1)
    before = model.theta.copy()
    try:
        minidl.safetensors.load(path, model)
    except ValueError:
        np.testing.assert_equal(model.theta, before)
        raise
    return True


def report_file(name):
    """Return the writer of a folder of a run, of which one file is damaged."""

    def write(folder):
        (folder / "run.json").write_text('{"axes": {}, "settings": {"lr": 0.1}}')
        (folder / "scores.json").write_text('{"train": 0.5, "test": 0.25}')
        table = Table(["a", "b"], "title")
        table.add(1, 0.5)
        table.write(folder / "table")
        with session(folder, data={"name": "d", "examples": {"train": 3}}):
            pass
        if name == "a.png":  # which takes a second
            line_plot(folder / name, Panel({"a": ([0, 1], [1, 2])}, "x", "y"))
        return folder / name

    return write


def read_report(path):
    """A report has no checksums; what is read is shown, or refused."""
    write_report([read_run(path.parent)], path.parent / "out")
    return True


REPORT = ("sessions.jsonl", "scores.json", "run.json", "table.csv", "a.png")
FORMATS = {
    **{f"report, {name}": (report_file(name), read_report) for name in REPORT},
    "course npz": (course, read_course),
    "IDX, gzip": (idx, read_images),
    "results.jsonl": (lines, read_lines),
    "grid.json": (record, read_record),
    "letters cache": (cached, read_cached),
    "checkpoint of a run": (run_file, read_run_file),
    "minidl.save": (model_file, read_model),
    "safetensors": (tensors, read_tensors),
}
"""By format: writes a good file and returns its path; reads a file."""


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Return a file with one random fault."""
    at = rng.randrange(len(raw))
    size = rng.choice((1, 4, 16, 64))
    kind = rng.randrange(7)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
    if kind == 2:
        return raw[:at] + bytes(size) + raw[at + size :]
    if kind == 3:
        return raw[:at] + b"\xff" * size + raw[at + size :]
    if kind == 4:
        return raw[:at] + rng.randbytes(size) + raw[at:]
    if kind == 5:
        return raw[:at] + raw[at + size :]
    return raw + rng.randbytes(size)


def deep(n: int) -> list:
    made: list = []
    for _ in range(n):
        made = [made]
    return made


HOSTILE = (
    None, True, -1, 0.5, 10**400, 1e308, "", "NaN", "x" * 5000, "../../x", "__class__", [], {}, [[]],
    {"class": "Linear"}, {"class": "Linear", "arguments": {"in_features": 30000, "out_features": 30000}},
    {"items": [], "kind": "tuple"}, {"array": [1], "dtype": "U1000000000"}, deep(300), [0] * 100_000,
    {"class": "Sequential", "arguments": {"layers": {"items": [{"class": "Identity", "arguments": {}}] * 20_000, "kind": "tuple"}}},
)  # fmt: skip
"""What stands in the place of any value."""


def places(value: object) -> list[tuple[dict | list, object]]:
    """Return every place in plain data: a dict or list, and a key."""
    found, rest = [], [value]
    while rest:
        one = rest.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()  # fmt: skip
        for key, inner in items:
            found.append((one, key))
            rest.append(inner)
    return found


def forge(value: object, rng: random.Random) -> object:
    """Return plain data with one to three values dropped, exchanged or hostile."""
    for _ in range(rng.randrange(1, 4)):
        (holder, key), (other, name) = (rng.choice(places(value)) for _ in range(2))
        kind = rng.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = json.loads(json.dumps(other[name]))
        else:
            holder[key] = json.loads(json.dumps(rng.choice(HOSTILE)))
        if not places(value):
            break
    return value


def forged(raw: bytes, rng: random.Random) -> bytes:
    """Return a file that a person forges: sums and lengths are right, and the contents hostile."""
    if raw[:2] == b"PK":
        with np.load(io.BytesIO(raw)) as archive:
            arrays = dict(archive)
        meta = forge(json.loads(str(arrays.pop("meta"))), rng)
        if rng.randrange(3) == 0:
            name = rng.choice(sorted(arrays))
            bad = (np.zeros(0), np.full(3, "x"), np.full(arrays[name].shape, np.nan), np.ones((2, 3, 4)), arrays[name].astype("f8") + 1e300, np.array(1))  # fmt: skip
            arrays[name] = rng.choice(bad)
        out = io.BytesIO()
        np.savez(out, meta=np.array(json.dumps(meta)), **arrays)
        return out.getvalue()
    if raw[:1] == b"{":
        lines = raw.splitlines() if b"crc32" in raw else [raw]
        at = rng.randrange(len(lines))
        record = json.loads(lines[at])
        crc = record.pop("crc32", None)
        record = forge(record, rng)
        if crc is not None and isinstance(record, dict):
            record["crc32"] = zlib.crc32(json.dumps(record).encode())
        lines[at] = json.dumps(record).encode()
        return b"".join(line + b"\n" for line in lines)
    size = int.from_bytes(raw[:8], "little")
    head = json.dumps(forge(json.loads(raw[8 : 8 + size]), rng)).encode()
    return len(head).to_bytes(8, "little") + head + raw[8 + size :]


def bombs(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Write small files that declare or unpack to very large ones, and files that never end."""

    def file(name, *pieces):
        (here := folder / name.replace(".", "-")).mkdir()
        (here / "run.json").write_text("{}")
        with (gzip.open if name.endswith("gz") else open)(here / name, "wb") as made:
            for piece in pieces:
                made.write(piece)
        return here / name

    def npz(name, member):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in ("X_train", "y_train"):
                with archive.open(f"{key}.npy", "w") as inside:
                    member(inside)
        return folder / name

    def zeros(inside):
        np.lib.format.write_array_header_1_0(inside, {"descr": "|u1", "fortran_order": False, "shape": (10**8,)})  # fmt: skip
        for _ in range(100):
            inside.write(bytes(10**6))

    def declared(inside):
        np.lib.format.write_array_header_1_0(inside, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})  # fmt: skip

    head = bytes([0, 0, 8, 3]) + np.array([2500, 200, 200], ">u4").tobytes()
    model = json.dumps({"version": 99, "layers": deep(400)})
    found = {
        "npz of zeros": (npz("zeros.npz", zeros), minidl.load_dataset),
        "npz that declares 8 TB": (npz("declared.npz", declared), minidl.load_dataset),
        "gzip of zeros": (file("x.gz", head, *[bytes(10**6)] * 100), read_images),
        "IDX that declares 4e28 bytes": (file("y.gz", bytes([0, 0, 8, 3]) + b"\xff" * 12), read_images),
        "safetensors with a header of 2^62 bytes": (file("a.safetensors", (2**62).to_bytes(8, "little") + b"{}"), read_tensors),
        "a model, deep": (file("m.npz", model.encode()), minidl.load),
        "a CSV of one line": (file("t.csv", b"," * 10**7 + b"best\n"), read_report),
        "results of one line": (file("results.jsonl", b"[" + b"[]," * 10**7), read_report),
    }  # fmt: skip
    if os.name != "nt":
        os.mkfifo(folder / "pipe")
        for kind, path in (("a pipe", folder / "pipe"), ("/dev/zero", Path("/dev/zero"))):
            for name, read in (("data", minidl.load_dataset), ("model", minidl.load), ("weights", read_tensors), ("IDX", read_images)):  # fmt: skip
                found[f"{kind} as {name}"] = path, read
    return found


def read_bombs(folder: Path) -> list[str]:
    """Read all of them; return those that were not refused in a line that names the file."""
    failures = []
    (here := folder / "bombs").mkdir()
    for name, (path, read) in bombs(here).items():
        start = time.process_time()
        try:
            read(path)
            failures.append(f"{name}: read")
        except (ValueError, TypeError, OSError) as error:
            if path.name not in str(error) or len(str(error)) > 3000:
                failures.append(f"{name}: not named, or at length: {error!r:.300}")
        except BaseException as error:
            failures.append(f"{name}: {error!r:.300}")
        if time.process_time() - start > LONGEST:
            failures.append(f"{name}: {time.process_time() - start:.1f} s")
    return failures


FORGED = (
    *(f"report, {name}" for name in REPORT if name.endswith((".json", ".jsonl"))),
    "results.jsonl",
    "grid.json",
    "checkpoint of a run",
    "minidl.save",
    "safetensors",
)


def read_forged(folder: Path, name: str, n: int) -> list[str]:
    """Read ``n`` forged files of a format; return what went wrong."""
    write, read = FORMATS[name]
    failures: list[str] = []
    (here := folder / f"{name} forged").mkdir()
    good = (path := write(here)).read_bytes()
    for i in range(n):
        path.write_bytes(forged(good, random.Random(f"{name} forged {i}")))
        start = time.process_time()
        try:
            read(path)  # whoever forges may write another right file
        except (ValueError, TypeError, OSError) as error:
            if str(here) not in str(error) or len(str(error)) > 3000:
                failures.append(f"{i}: not named, or at length: {error!r:.300}")
        except BaseException as error:
            failures.append(f"{i}: {error!r:.300}")
        if time.process_time() - start > LONGEST:
            failures.append(f"{i}: {time.process_time() - start:.1f} s")
    return failures


def damage(folder: Path, n: int) -> dict[str, list]:
    """Read ``n`` damaged files of each format; return what went wrong, and the peak memory."""
    warnings.simplefilter("error")
    found: dict[str, list] = {}
    for name, (write, read) in FORMATS.items():
        found[name] = []
        for i in range(n):
            rng = random.Random(f"{name} {i}")
            here = folder / f"{name} {i}"
            here.mkdir()
            path = write(here)
            good = read(path)
            path.write_bytes(damaged(path.read_bytes(), rng))
            try:
                if read(path) != good:
                    found[name].append(f"{path}: read as something else")
            except (ValueError, TypeError, OSError):
                pass
            except BaseException as error:
                found[name].append(f"{path}: {type(error).__name__}: {error}")
    for name in FORGED:
        found[f"{name}, forged"] = read_forged(folder, name, n)
    found["bombs"] = read_bombs(folder)
    status = Path("/proc/self/status")
    peak = next((s for s in status.read_text().splitlines() if "VmHWM" in s), "- 0") if status.exists() else "- 0"  # fmt: skip
    return {**found, "peak": [int(peak.split()[1])]}


def attack(folder: Path, n: int) -> list[Tally]:
    """Damage ``n`` files of each format in another process."""
    environment = {**ENVIRONMENT, "MINIDL_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "attacks.damage", str(folder), str(n)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode != 0:
        return [Tally("damaged files", n, [f"the process ended: {done.stderr[-500:]}"])]
    found = json.loads(done.stdout)
    (peak,) = found.pop("peak")
    tallies = [Tally(f"damaged {name}", n, failures) for name, failures in found.items()]
    memory = Tally(f"peak memory of all damaged files, {peak // 1000} MB")
    memory.count(None if peak < LIMIT else f"{peak} kB")
    return [*tallies, memory]


if __name__ == "__main__":
    print(json.dumps(damage(Path(sys.argv[1]), int(sys.argv[2]))))
