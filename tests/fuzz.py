"""Mutation fuzzing of every reader of untrusted bytes.

    python tests/fuzz.py --cases 200000 --seed 0 [--reader NAME] [--jobs 2]
    python tests/fuzz.py --reader NAME --seed 0 --case 123 --save input.bin

Genuine files are mutated: bytes, integers, structure; where a format has checksums they are made
right again, and what is compressed is changed inside. A case depends on reader, seed and number
alone. Cases run in a process of their own, so that a crash or a hang is one fault among others,
and there the compiled kernels check their bounds. A fault is an exception of a type the reader does
not document, a message of more than one line, a warning, more memory than the reader promises, a
promise that what was accepted does not keep, a crash, or a hang.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gzip
import hashlib
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
HANG_SECONDS = 20.0
MOST_RESTARTS = 20  # of a process that goes on crashing
SPARE_MEMORY = 6 << 30  # address space of a process: for what tracemalloc does not see
WEIGHTS = {  # of all cases, how many parts go to a reader
    "read_records": 6,
    "read_matrix": 7,
    "read_params": 8,
    "read_artifact": 8,
    "parse_answers": 5,
    "training_history": 2,
    "storage.load": 5,
    "fmknn.load": 3,
}


@dataclass(frozen=True)
class Fault:
    """What should not have happened, and the case that makes it happen again."""

    reader: str
    seed: int
    case: int
    what: str

    def __str__(self) -> str:
        again = f"python tests/fuzz.py --reader {self.reader} --seed {self.seed} --case {self.case}"
        return f"{self.what}\n    {again}"


@dataclass
class Report:
    """What became of the cases of one reader."""

    reader: str
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, -1)  # seconds, case
    largest: tuple[float, int, int] = (0.0, 0, -1)  # part of the bound, bytes, case
    faults: list[Fault] = field(default_factory=list)

    def add(self, seed: int, line: str) -> int:
        """Take in what a process noted of a case, and return the number of the case."""
        case, outcome, fault, seconds, peak, bound = json.loads(line)
        self.cases += 1
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, (seconds, case))
        self.largest = max(self.largest, (peak / bound, peak, case))
        if fault:
            self.faults.append(Fault(self.reader, seed, case, fault))
        return case

    def merge(self, other: Report) -> None:
        self.cases += other.cases
        self.outcomes += other.outcomes
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)
        self.faults += other.faults


# --- one case, in a process of its own -------------------------------------------------------


def one_case(reader, corpus, seed, case):
    return reader.mutate(random.Random(f"{reader.name} {seed} {case}"), corpus)


def examine(reader, data):
    """Return the outcome, the fault or "", the seconds, the bytes at the peak and their bound."""
    bound, fault = reader.bound(len(data)), ""
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.read(data)
        outcome = "accepted"
    except Exception as error:
        outcome, message = type(error).__name__, str(error)
        if type(error) not in reader.errors:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno} in {place.name}"
            fault = f"{outcome}: {message[:300]!r} ({where})"
        elif len(message.splitlines()) != 1:
            fault = f"{outcome}, not in one line: {message[:300]!r}"
    seconds = time.perf_counter() - start
    peak = max(0, tracemalloc.get_traced_memory()[1] - before)
    if not fault and peak > bound:
        fault = f"{peak:,} bytes at the peak for an input of {len(data):,}, bound {bound:,}"
    return "fault" if fault else outcome, fault, seconds, peak, bound


def work(name, seed, start, stop, hang, log):
    """Examine cases, noting each in the log once it is over: what it lacks was fatal."""
    reader = READERS[name]
    corpus = reader.corpus()
    limit_memory()
    tracemalloc.start()
    for data in reader.genuine(corpus):  # what is imported and compiled is not measured
        outcome, fault, *_ = examine(reader, data)
        assert outcome == "accepted" or "bytes at the peak" in fault, (outcome, fault)
    with open(log, "ab", buffering=0) as out:
        for case in range(start, stop):
            data = one_case(reader, corpus, seed, case)
            faulthandler.dump_traceback_later(hang, exit=True)
            found = examine(reader, data)
            if found[3] > found[4] // 2:  # something may have been imported or compiled
                found = examine(reader, data)
            faulthandler.cancel_dump_traceback_later()
            out.write(json.dumps([case, *found]).encode() + b"\n")


def limit_memory():
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_MEMORY, hard))


# --- many cases, from outside ----------------------------------------------------------------


def run(cases, seed=0, names=tuple(WEIGHTS), jobs=1, hang=HANG_SECONDS):
    """Return a report for each reader; the cases are shared out by weight."""
    total = sum(WEIGHTS.get(name, 1) for name in names)
    reports = {name: Report(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="fmknn-fuzz-") as folder:
        tasks, given = [], 0
        for place, name in enumerate(names):
            share = cases * WEIGHTS.get(name, 1) // total
            share = cases - given if place == len(names) - 1 else share
            given += share
            bounds = [share * i // jobs for i in range(jobs + 1)]
            tasks += [(name, *pair) for pair in itertools.pairwise(bounds)]
        with ThreadPoolExecutor(jobs) as pool:
            parts = pool.map(lambda task: _run_range(folder, *task, seed, hang), tasks)
            for part in parts:
                reports[part.reader].merge(part)
    return list(reports.values())


def _run_range(folder, name, start, stop, seed, hang):
    """Run cases in one process, and in another after each that a case has ended."""
    report, log = Report(name), Path(folder) / f"{name}-{start}.log"
    for _ in range(MOST_RESTARTS):
        if start == stop:
            break
        log.write_bytes(b"")
        ended = subprocess.run(
            [sys.executable, __file__, "--worker", name, *map(str, (seed, start, stop, hang, log))],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    [str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
                ),
                "NUMBA_BOUNDSCHECK": "1",
                "NUMBA_CACHE_DIR": folder,  # code that checks bounds stays apart from the other
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        for line in log.read_text().splitlines():
            start = report.add(seed, line) + 1
        if ended.returncode == 1 and "Timeout (" not in ended.stderr:
            raise RuntimeError(f"the fuzzer itself failed: {ended.stderr[-3000:]}")
        if start < stop:  # it ended within a case
            report.cases += 1
            report.outcomes["fault"] += 1
            report.faults.append(Fault(name, seed, start, _fatal(ended)))
            start += 1
    return report


def _fatal(ended):
    hung = "Timeout (" in ended.stderr
    what = "hang" if hung else f"the process ended with {ended.returncode}"
    return f"{what}: {ended.stderr.strip()[-1500:]}"


# --- mutations of bytes ----------------------------------------------------------------------

INTEGERS = [
    *range(13), 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**20, 2**24,
    2**29 - 1, 2**29, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**58, 2**59, 2**60, 2**61, 2**62,
    2**63 - 1, 2**63, 2**64 - 1, 2**64 - 2,
    0x7F800001, 0x7FF0000000000001,  # NaN that signals when it is converted, as numbers
]  # fmt: skip
BYTES = [0, 1, 0x7F, 0x80, 0xFF]
LARGEST = 1 << 16  # bytes: an input may not grow beyond by duplication


def mutated(rng, data, others=()):
    """Apply a few mutations, mostly one."""
    for _ in range(1 + min(7, int(rng.expovariate(1.2)))):
        data = rng.choice(MUTATIONS)(rng, data, others)
    return data


def _span(rng, data):
    start = rng.randrange(len(data) + 1)
    length = int(rng.expovariate(1 / rng.choice([1, 4, 16, 64, 512])))
    return start, min(len(data), start + length)


def flip_bit(rng, data, others):
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def set_byte(rng, data, others):
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice(BYTES)]) + data[at + 1 :]


def set_integer(rng, data, others):
    width = rng.choice([1, 2, 4, 4, 8, 8])
    if len(data) < width:
        return data
    at = rng.randrange(len(data) - width + 1)
    at -= at % 4 if rng.random() < 0.5 else 0
    value = rng.choice(INTEGERS) % (1 << 8 * width)
    if rng.random() < 0.2:  # what is there, a little off
        there = int.from_bytes(data[at : at + width], "little")
        value = (there + rng.choice([-1, 1])) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def truncate(rng, data, others):
    return data[: rng.randrange(len(data) + 1)]


def insert(rng, data, others):
    at, n = rng.randrange(len(data) + 1), rng.choice([1, 2, 4, 8, 64])
    new = rng.randbytes(n) if rng.random() < 0.5 else bytes([rng.choice(BYTES)]) * n
    return data[:at] + new + data[at:]


def delete(rng, data, others):
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def duplicate(rng, data, others):
    start, stop = _span(rng, data)
    times = min(rng.choice([1, 1, 2, 16, 1000]), LARGEST // max(1, stop - start))
    return data[:stop] + data[start:stop] * times + data[stop:]


def move(rng, data, others):
    start, stop = _span(rng, data)
    rest, at = data[:start] + data[stop:], rng.randrange(len(data) + 1)
    return rest[:at] + data[start:stop] + rest[at:]


def splice(rng, data, others):
    if not others:
        return data
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


MUTATIONS = [
    flip_bit, set_byte, set_integer, set_integer, set_integer, truncate, insert, delete, duplicate,
    move, splice,
]  # fmt: skip


# --- mutations of JSON -----------------------------------------------------------------------

DEEP, DIGITS, HUGE, LONG = "\0deep", "\0digits", "\0huge", "\0long"  # put in as text, see below
ATOMS = [
    None, True, False, 0, 1, -1, 2, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    -(2**63), 10**400, 0.5, -0.0, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, "", "x",
    "null", "é\u2028\n\x85", "\ud800", [], {}, [[]], [None], {"": None}, DEEP, DIGITS, HUGE, LONG,
]  # fmt: skip


def _places(tree):
    """Return (container, key) of everything in a JSON value."""
    places, pending = [], [tree]
    while pending:
        value = pending.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                pending.append(inner)
    return places


def mutated_json(rng, tree):
    """Return the JSON value changed in a few places."""
    tree = copy.deepcopy(tree)
    for _ in range(1 + min(4, int(rng.expovariate(1.2)))):
        places = _places(tree) if isinstance(tree, (dict, list)) else []
        if not places or rng.random() < 0.02:
            return copy.deepcopy(rng.choice(ATOMS))
        holder, key = rng.choice(places)
        other_holder, other_key = rng.choice(places)
        how = rng.randrange(8)
        if how <= 2:
            holder[key] = copy.deepcopy(rng.choice(ATOMS))
        elif how == 3:
            del holder[key]
        elif how == 4 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice([1, 2, 100])
        elif how == 4:
            holder[rng.choice(["", "name", "op", "é", key * 2])] = copy.deepcopy(holder[key])
        elif how == 5:
            holder[key] = copy.deepcopy(other_holder[other_key])
        elif how == 6:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif type(holder[key]) in (int, float):
            number = holder[key]
            holder[key] = rng.choice([number + 1, -number, number // 2, 1e9, 0.5])
    return tree


def json_bytes(rng, tree, **options):
    """Write JSON, with what json.dumps would not write."""
    text = json.dumps(tree, **options).encode()
    for marker in (DEEP, DIGITS, HUGE, LONG):
        quoted = json.dumps(marker).encode()
        if quoted in text:
            n = rng.choice([100, 5_000, 60_000])
            deep = rng.choice([b"[" * n, b'{"a":' * n, b"[" * n + b"]" * n])
            number = rng.choice([b"9" * n, b"0." + b"9" * n, b"9" * n + b"e-" + b"9" * 5])
            new = {DEEP: deep, DIGITS: number, HUGE: b"1e999", LONG: b'"' + b"x" * n + b'"'}
            text = text.replace(quoted, new[marker])
    return text


# --- RecordIO-protobuf -----------------------------------------------------------------------

SCHEMA = {(): (1, 2), (1,): (2,), (1, 2): (2, 3, 7, 9)}  # fields that hold messages, by depth


def _fixtures(*patterns):
    folder = TESTS / "fixtures" / "sagemaker"
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    assert paths, f"no fixtures in {folder} match {patterns}"
    return [path.read_bytes() for path in paths]


def _varint(number):
    number %= 1 << 64
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _payloads(data):
    """Return the contents of whole records; parts of a split one count for themselves."""
    found, at = [], 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little") & 0x1FFFFFFF
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length + -length % 4
    return found


def _framed(payload):
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)


def _parsed(message, path=()):
    """Return a well-formed message as [tag, bytes or message] pairs."""
    fields, at = [], 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        size = number()
        content = message[at : at + size]
        at += size
        step = 1 if path == () and tag >> 3 == 2 else tag >> 3  # features and labels are alike
        inner = tag & 7 == 2 and tag >> 3 in SCHEMA.get(path, ())
        fields.append([tag, _parsed(content, (*path, step)) if inner else content])
    return fields


def _serialized(fields):
    out = b""
    for tag, content in fields:
        content = _serialized(content) if isinstance(content, list) else content
        wire = tag & 7
        head = _varint(tag) + (_varint(len(content)) if wire == 2 else b"")
        if wire in (1, 5):
            content = content.ljust(8 if wire == 1 else 4, b"\0")[: 8 if wire == 1 else 4]
        elif wire == 0:
            content = _varint(int.from_bytes(content[:8], "little"))
        out += head + content
    return out


def _mutated_fields(rng, fields):
    """Change a protocol buffer, the lengths being right again."""
    fields = copy.deepcopy(fields)
    groups, pending = [], [fields]
    while pending:
        group = pending.pop()
        groups.append(group)
        pending += [content for _, content in group if isinstance(content, list)]
    for _ in range(1 + min(4, int(rng.expovariate(1)))):
        group = rng.choice(groups)
        if not group:
            continue
        place, how = rng.randrange(len(group)), rng.randrange(7)
        if how == 0:
            del group[place]
        elif how == 1:
            group[place:place] = [copy.deepcopy(group[place])] * rng.choice([1, 1, 2, 300])
        elif how == 2:
            group[place][0] = rng.choice([0, 1, 2, 3, 7, 9, 15, 2**29]) << 3 | rng.randrange(8)
        elif how == 3:
            group.append(copy.deepcopy(rng.choice(rng.choice(groups) or [[10, b""]])))
        elif isinstance(group[place][1], list):
            group[place][1] = rng.choice(groups)[:3] if how == 4 else group[place][1][::-1]
            if group in group[place][1] or group[place][1] is group:
                group[place][1] = []
        elif how == 4:
            numbers = [_varint(rng.choice(INTEGERS)) for _ in range(rng.randrange(1, 6))]
            group[place][1] = b"".join(numbers)
        else:
            group[place][1] = mutated(rng, group[place][1])
    return fields


def recordio_case(rng, corpus):
    data = rng.choice(corpus)
    if rng.random() < 0.4:
        return mutated(rng, data, corpus)
    payloads = _payloads(data)
    place = rng.randrange(len(payloads))
    payload = payloads[place]
    with suppress(IndexError, RecursionError):  # a part of a split record is no message
        payload = _serialized(_mutated_fields(rng, _parsed(payload)))
    if rng.random() < 0.3:
        payload = mutated(rng, payload, payloads)
    payloads[place] = payload
    return b"".join(map(_framed, payloads))


def recordio_corpus():
    return _fixtures("recordio/*.pbr", "recordio/*.rec")


def recordio_genuine(corpus):
    return _fixtures(*(f"recordio/{kind}*.pbr" for kind in ("dense_f32", "sparse_f32_fm", "*_int")))


def read_records(data):
    from fmknn.backends.sagemaker import recordio

    for record in recordio.read_records(data, max_record_bytes=1 << 20):
        for value in [*record.features.values(), *record.label.values()]:
            if isinstance(value, recordio.Tensor) and value.keys is not None:
                assert (value.keys >= 0).all()


def read_matrix(data):
    import numpy as np

    from fmknn.backends.sagemaker import recordio

    matrix, labels = recordio.read_matrix(data)
    assert labels is None or labels.shape == (len(matrix),)
    if isinstance(matrix, np.ndarray):
        assert matrix.dtype == np.float32 and np.isfinite(matrix).all()
        return
    indptr, indices = matrix.indptr, matrix.indices
    assert indptr[0] == 0 and indptr[-1] == len(indices) == len(matrix.values)
    assert (np.diff(indptr) >= 0).all() and np.isfinite(matrix.values).all()
    assert ((indices >= 0) & (indices < matrix.n_columns)).all()
    for start, stop in itertools.pairwise(indptr):
        assert (np.diff(indices[start:stop]) > 0).all()


# --- MXNet's parameters and SageMaker's model archives -----------------------------------------

MAX_BYTES = 1 << 20  # what the two readers may take, said on the call
LIST_MAGIC = struct.pack("<Q", 0x112)
NAMES = [
    "params", "symbol.json", "model_algo-1", "model-0000.params", "model-0001.params", "a/params",
    "./model_algo-1", "x-symbol.json", "._params", "../params", "/params", "é" * 60, "p" * 200,
    "readme", "", "a\nb", "params/",
]  # fmt: skip


def params_corpus():
    many = LIST_MAGIC + struct.pack("<QQ", 0, 200) + bytes(800) + bytes(8)  # without a value
    return [*_fixtures("mxnet-*/*.params", "mxnet-*/*/*.params"), many]


def params_case(rng, corpus):
    return mutated(rng, rng.choice(corpus), corpus)


def read_params(data):
    from fmknn.backends.sagemaker import mxnet_params

    arrays = mxnet_params.read_params(data, max_bytes=MAX_BYTES)
    assert sum(array.nbytes for array in arrays.values()) <= max(MAX_BYTES, 4 * len(data))
    for array in arrays.values():
        assert array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative
        array.tobytes()


def artifact_corpus():
    """Return pairs of params and symbol.json, and archives as they are."""
    folder = TESTS / "fixtures" / "sagemaker"
    pairs = [
        (path.read_bytes(), path.with_name("model-symbol.json").read_bytes())
        for path in sorted(folder.glob("mxnet-*/*/model-0000.params"))
    ]
    pairs += [(_fm(code, kind), pairs[0][1]) for code, kind in ((1, "d"), (2, "e"))]
    return pairs, _fixtures("mxnet-*/*/model.tar.gz", "packaging/*.tar.gz")


def _fm(code, kind):
    """Return the parameters of 3 features and 2 factors as other floats (V2, dense)."""
    arrays, names = b"", b""
    for name, shape in (("arg:v", (3, 2)), ("arg:w1_weight", (3, 1)), ("arg:w0_weight", (1, 1))):
        n = math.prod(shape)
        arrays += struct.pack("<Iiiqqiii", 0xF993FAC9, 0, 2, *shape, 1, 0, code)
        arrays += struct.pack(f"<{n}{kind}", *(i / 4 for i in range(n)))
        names += struct.pack("<Q", len(name)) + name.encode()
    return LIST_MAGIC + struct.pack("<QQ", 0, 3) + arrays + struct.pack("<Q", 3) + names


def artifact_genuine(corpus):
    pairs, archives = corpus
    return [*archives, *(params for params, _ in pairs)]


def artifact_case(rng, corpus):
    pairs, archives = corpus
    if rng.random() < 0.1:
        return mutated(rng, rng.choice(archives), archives)
    params, symbol = rng.choice(pairs)
    layer = rng.choice(["params", "params", "symbol", "zip", "zip", "tar", "tar", "gzip", "names"])
    if layer == "params":
        params = mutated(rng, params, [params for params, _ in pairs])
    elif layer == "symbol":
        if rng.random() < 0.7:
            symbol = json_bytes(rng, mutated_json(rng, json.loads(symbol)))
        else:
            symbol = mutated(rng, symbol, [symbol for _, symbol in pairs])
    if rng.random() < 0.08:
        return params
    form = rng.choice(["model", "model", "model", "zip", "checkpoint", "bare"])
    members = [("params", params), ("symbol.json", symbol)]
    if form == "checkpoint":
        members = [("model-0000.params", params), ("model-symbol.json", symbol)]
    elif form == "bare":
        members = [("model_algo-1", params)]
    if layer == "names":
        members = _other_members(rng, members)
    if form in ("model", "zip"):
        archive = _zip(rng, members)
        archive = mutated(rng, archive) if layer == "zip" else archive
        if form == "zip":
            return archive
        members = [("model_algo-1", archive)]
        if layer == "names" and rng.random() < 0.3:
            members = _other_members(rng, members)
    tar = _tar(rng, members, tamper=layer == "tar")
    if rng.random() < 0.2:
        return tar
    packed = gzip.compress(tar, 1, mtime=0)
    return mutated(rng, packed) if layer == "gzip" else packed


def _other_members(rng, members):
    """Rename, drop, repeat and add members."""
    members = list(members)
    for _ in range(rng.randrange(1, 4)):
        place, how = rng.randrange(len(members) + 1), rng.randrange(5)
        name, content = rng.choice(members or [("params", LIST_MAGIC)])
        if how == 0 and members:
            members.pop(place % len(members))
        elif how == 1:
            members.insert(place, (rng.choice(NAMES), content))
        elif how == 2 and members:
            members[place % len(members)] = (rng.choice(NAMES), content)
        elif how == 3:
            members.insert(place, (name, b"x" * rng.choice([0, 1, 511, 512, 3000])))
        else:  # as much as is allowed, which compresses to a thousandth; more than once
            large = LIST_MAGIC + bytes(rng.choice([MAX_BYTES // 2, MAX_BYTES - 8, MAX_BYTES + 8]))
            names = [f"x{i}-0000.params" for i in range(rng.choice([1, 2, 40]))]
            members += [(name, large) for name in names]
    return members


def _zip(rng, members):
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED]
    methods += [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA] if rng.random() < 0.05 else []
    large = sum(len(content) for _, content in members) > 1 << 18
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            entry = zipfile.ZipInfo(name or "x", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED if large else rng.choice(methods)
            archive.writestr(entry, content, compresslevel=1)
    return packed.getvalue()


def _tar(rng, members, tamper):
    """Write a tar; tampering keeps the checksums of headers right."""
    out = b""
    changed = rng.randrange(len(members)) if members and tamper else -1
    for place, (name, content) in enumerate(members):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        header = entry.tobuf(
            rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), "utf-8", "replace"
        )
        if place == changed:
            header = header[:-512] + _tampered_header(rng, header[-512:])
        out += header + content + bytes(-len(content) % 512)
    out += bytes(rng.choice([0, 512, 1024, 9216]))
    if tamper and rng.random() < 0.3:
        return mutated(rng, out)
    return out


def _tampered_header(rng, header):
    how = rng.randrange(4)
    if how == 0:  # the size
        size = rng.choice(INTEGERS)
        octal = b"%011o\0" % (size % 8**11)
        field = rng.choice([octal, b"\x80" + size.to_bytes(11, "big"), b"\xff" * 12, b" 1_0", b""])
        header = header[:124] + field[:12].ljust(12, b"\0") + header[136:]
    elif how == 1:  # the kind
        kind = rng.choice([b"0", b"\0", b"1", b"2", b"5", b"7", b"L", b"K", b"x", b"g", b"S", b"?"])
        header = header[:156] + kind + header[157:]
    elif how == 2:
        header = rng.choice(NAMES).encode()[:100].ljust(100, b"\0") + header[100:]
    else:
        header = mutated(rng, header)[:512].ljust(512, b"\0")
    checksum = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % checksum + header[156:]


def read_artifact(data):
    import numpy as np

    from fmknn.backends.sagemaker import artifact

    found = artifact.read_artifact(data, max_bytes=MAX_BYTES)
    assert found.loss in ("squared", "logistic", None)
    assert math.isfinite(found.params.w0)
    assert np.isfinite(found.params.w).all() and np.isfinite(found.params.V).all()


# --- answers and logs --------------------------------------------------------------------------

N_QUERIES, K, N_ITEMS = 3, 5, 40


def answers_corpus():
    """Return answers as AWS documents them: three of them, five neighbours each."""
    rng = random.Random(1)
    corpus = []
    for number in range(4):
        answers = []
        for _ in range(N_QUERIES):
            labels = [float(item) for item in rng.sample(range(N_ITEMS), K)]
            distances = sorted(round(rng.gauss(1, 1), 6) for _ in range(K))
            answers.append(
                {"predicted_label": labels[-1], "distances": distances, "labels": labels}
            )
        corpus.append([{"predictions": answers}] if number == 3 else answers)
    return corpus


def answers_genuine(corpus):
    return [b"\n".join(json.dumps(answer).encode() for answer in answers) for answers in corpus]


def answers_case(rng, corpus):
    answers = rng.choice(corpus)
    if rng.random() < 0.7:
        answers = mutated_json(rng, answers)
    answers = answers if isinstance(answers, list) else [answers]
    between = rng.choice([b"", b"\n", b"\r\n", b" ", b"\n\n"])
    data = between.join(json_bytes(rng, answer) for answer in answers)
    return mutated(rng, data) if rng.random() < 0.4 else data


def parse_answers(data):
    import numpy as np

    from fmknn.backends.sagemaker import answers

    labels, distances = answers.parse_answers(data, N_QUERIES, K, N_ITEMS, "users.rec.out")
    assert labels.shape == distances.shape == (N_QUERIES, K)
    assert ((labels >= -1) & (labels < N_ITEMS)).all()
    assert ((labels == -1) == np.isnan(distances)).all() and not np.isinf(distances).any()


LOG = """Docker entrypoint called with argument(s): train
#quality_metric: host=algo-1, epoch=0, batch=0 train binary_classification_accuracy <score>=0.62
#quality_metric: host=algo-1, epoch=0, train binary_classification_accuracy <score>=0.5514
#quality_metric: host=algo-1, epoch=0, train binary_classification_cross_entropy <loss>=0.685802
#quality_metric: host=algo-1, epoch=1, train binary_f_1.000 <score>=0.680834
#progress_metric: host=algo-1, completed 3.3333333333333335 % of epochs
#quality_metric: host=algo-1, epoch=12, train rmse <loss>=1.25e-1
"""
LOG_TOKENS = [
    "9" * 5000, "-1", "nan", "inf", "1e999", "1_0", "\u0663", "iteration", "<loss>=", "epoch=",
    " train ", "#quality_metric: host=algo-1, epoch=", "\udc80", "x" * 5000, "<" * 500,
]  # fmt: skip


def log_corpus():
    return [LOG.encode()]


def log_case(rng, corpus):
    data = rng.choice(corpus)
    if rng.random() < 0.6:
        token = rng.choice(LOG_TOKENS).encode("utf-8", "surrogatepass")
        words = data.replace(b"=", b"= ").split(b" ")
        place = rng.randrange(len(words))
        words[place : place + rng.randrange(2)] = [token]
        data = b" ".join(words).replace(b"= ", b"=")
    return mutated(rng, data, corpus) if rng.random() < 0.6 else data


def training_history(data):
    from fmknn.backends.sagemaker import logs

    history = logs.training_history(data.decode("utf-8", "surrogateescape").split("\n"))
    iterations = [entry["iteration"] for entry in history]
    assert all(type(number) is int and number > 0 for number in iterations)
    assert iterations == sorted(set(iterations))
    assert all(type(value) in (int, float) for entry in history for value in entry.values())


# --- fmknn's own files ---------------------------------------------------------------------------

HEADER = struct.Struct("<8sIQ32s")
ALIGNMENT = 64
ITEM_SIZES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4,
    "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8, "strings": 8,
}  # fmt: skip
FORMATS = {"float16": "e", "float32": "f", "float64": "d", "int32": "i", "int64": "q"}
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, -3e38, 1e300, math.inf, -math.inf, math.nan]


def _unpacked(data):
    """Return the manifest, and the bytes of each array, of a file that is whole."""
    length = HEADER.unpack_from(data)[2]
    manifest = json.loads(data[HEADER.size : HEADER.size + length])
    start = -(-(HEADER.size + length) // ALIGNMENT) * ALIGNMENT
    arrays = [data[start + e["offset"] :][: e["nbytes"]] for e in manifest["arrays"]]
    return manifest, arrays


def _packed(rng, manifest, arrays, change=None):
    """Lay the arrays out and write the file with the right checksums."""
    body = b""
    for entry, raw in zip(manifest["arrays"], arrays, strict=True):
        body += bytes(-len(body) % ALIGNMENT)
        entry |= {
            "offset": len(body),
            "nbytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        body += raw
    raw = json_bytes(rng, change(manifest) if change else manifest, separators=(",", ":"))
    head = HEADER.pack(b"\x89fmknn\r\n", 1, len(raw), hashlib.sha256(raw).digest()) + raw
    return head + bytes(-len(head) % ALIGNMENT) + body


def storage_case(rng, corpus):
    data = rng.choice(corpus)
    if rng.random() < 0.15:
        return mutated(rng, data, corpus)
    manifest, arrays = _unpacked(data)
    how = rng.random()
    if how < 0.2:
        return _packed(rng, manifest, arrays, lambda whole: mutated_json(rng, whole))
    if how < 0.45:
        manifest["metadata"] = mutated_json(rng, manifest["metadata"])
        if not isinstance(manifest["metadata"], dict):
            manifest["metadata"] = {"kind": manifest["metadata"]}
    else:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _mutate_array(rng, manifest["arrays"], arrays)
    return _packed(rng, manifest, arrays)


def _mutate_array(rng, entries, arrays):
    if not entries:
        return
    place, how = rng.randrange(len(entries)), rng.randrange(11)
    entry, raw = entries[place], arrays[place]
    size = ITEM_SIZES[entry["dtype"]]
    items = [raw[at : at + size] for at in range(0, len(raw), size)]
    if how <= 3 and items:  # numbers
        for _ in range(rng.choice([1, 1, 2, 10])):
            at, new = rng.randrange(len(items)), rng.choice(items)
            if entry["dtype"].startswith("float") and rng.random() < 0.7:
                with suppress(OverflowError):
                    new = struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], rng.choice(NUMBERS))
            elif rng.random() < 0.7:
                there = int.from_bytes(items[at], "little")
                value = rng.choice([there + 1, there - 1, -1, len(items), rng.choice(INTEGERS)])
                new = (value % (1 << 8 * size)).to_bytes(size, "little")
            items[at] = new
        arrays[place] = b"".join(items)
    elif how == 4:
        arrays[place] = mutated(rng, raw)
    elif how == 5 and entry["shape"]:  # longer or shorter, and the shape with it
        axis = rng.randrange(len(entry["shape"]))
        row = len(raw) // entry["shape"][axis] if entry["shape"][axis] else size
        n = rng.choice([0, 1, max(0, entry["shape"][axis] - 1), entry["shape"][axis] + 1])
        arrays[place] = (raw + raw[-row:] + bytes(row))[: n * row]
        entry["shape"][axis] = n
    elif how == 6:
        shape = entry["shape"]
        others = [[*shape, 1], [1, *shape], shape[::-1], [math.prod(shape)], [], [0, 2**62]]
        entry["shape"] = rng.choice(others)
    elif how == 7 and entry["dtype"] in FORMATS and len(raw) % size == 0:  # as other numbers
        values = struct.unpack(f"<{len(items)}{FORMATS[entry['dtype']]}", raw)
        entry["dtype"] = rng.choice(list(FORMATS))
        with suppress(struct.error, OverflowError, ValueError):
            kind = float if entry["dtype"].startswith("float") else int
            arrays[place] = struct.pack(
                f"<{len(items)}{FORMATS[entry['dtype']]}", *map(kind, values)
            )
        if entry["dtype"] == "float64" and items and rng.random() < 0.5:
            arrays[place] = struct.pack("<Q", 0x7FF0000000000001) + arrays[place][8:]
    elif how == 7:
        entry["dtype"] = rng.choice(list(ITEM_SIZES))
    elif how == 8:
        other = rng.randrange(len(entries))
        entry["name"], entries[other]["name"] = entries[other]["name"], entry["name"]
    elif how == 9:
        del entries[place], arrays[place]
    else:
        entries.append(copy.deepcopy(entry) | {"name": rng.choice([entry["name"], "x", "a\nb"])})
        arrays.append(raw)


def _saved(save):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.fmknn"
        save(path)
        return path.read_bytes()


def storage_corpus():
    import numpy as np

    from fmknn.model import storage

    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 2, (3, 2)).astype(name) for name in ITEM_SIZES if name != "strings"
    }
    texts = {"ids": np.array(["a", "bé", "", "long" * 20], object), "none": np.zeros(0, object)}
    shapes = {"0-d": np.float64(1.5), "empty": np.zeros((0, 3)), "4-d": np.ones((1, 2, 3, 2))}
    metadata = {"n": 8, "loss": "squared", "list": [1, 2.5, None, True, {"a": [[]]}], "text": "é"}
    contents = [(arrays, metadata), (texts, {}), (shapes, metadata), ({}, {})]
    return [_saved(lambda path, c=content: storage.save(path, *c)) for content in contents]


def _with_file(data, read):
    with tempfile.TemporaryDirectory(prefix="fmknn-fuzz-case-") as folder:
        path = Path(folder) / "case.fmknn"
        path.write_bytes(data)
        read(path)


def storage_load(data):
    def read(path):
        from fmknn.model import storage

        arrays, metadata = storage.load(path)
        assert type(metadata) is dict and not any(a.flags.writeable for a in arrays.values())

    _with_file(data, read)


def model_corpus():
    from planted import classifier, clicks, trained

    import fmknn

    models = [trained(flavour) for flavour in ("ids", "everything", "strings")]
    models.append(fmknn.Recommender(classifier()).fit(clicks()))
    models.append(trained("everything").with_index(fmknn.FaissIndex("IVF", nlist=3, nprobe=2)))
    return [_saved(model.save) for model in models]


def model_load(data):
    def read(path):
        import numpy as np

        import fmknn

        model = fmknn.load(path)
        try:  # what was accepted is served: kernels follow it without looking
            _serve(fmknn, np, model)
        except Exception as error:
            raise UnservedError(f"{type(error).__name__} while serving: {error}") from error

    _with_file(data, read)


class UnservedError(Exception):
    """A model that was accepted and cannot answer."""


def _serve(fmknn, np, model):
    users, items = model.users.ids, model.items.ids
    contexts = model.catalog_.contexts.items()
    context = {name: side.ids.ids[0] for name, side in contexts} or None
    top = model.recommend(users[:3], 4, context=context)
    assert ((top.positions >= -1) & (top.positions < len(items))).all()
    if len(users) and len(items):
        scores = model.scores(users[:1], items[:1], context=context)
        assert scores.shape == (1,) and not np.isnan(scores).any()


# --- the readers, what they document and what they promise ---------------------------------------


@dataclass(frozen=True)
class Reader:
    """One reader of untrusted bytes.

    ``error_names`` are the types it documents; ``bound`` gives the bytes that it may take at most
    for an input of that many; ``genuine`` gives, from the corpus, files that it accepts.
    """

    name: str
    corpus: Callable[[], Any]
    mutate: Callable[[random.Random, Any], bytes]
    read: Callable[[bytes], None]
    error_names: tuple[str, ...]
    bound: Callable[[int], int]
    genuine: Callable[[Any], list[bytes]] = list

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        from fmknn import errors
        from fmknn.backends.sagemaker.recordio import RecordIOError

        return tuple(
            RecordIOError if name == "RecordIOError" else getattr(errors, name)
            for name in self.error_names
        )


def _plain_bound(n):
    return 64 * n + (1 << 20)


def _model_bound(n):
    """Item vectors of 256 times the file, seven times over while an index is made of them."""
    return _plain_bound(n) + 7 * 256 * n


def _limited_bound(n):
    """Six times what max_bytes allows: an archive, members and arrays, read and converted."""
    limit = max(MAX_BYTES, 4 * n)
    return 6 * limit + min(256 * n, 1 << 26)  # and up to 65,536 arrays without a value


def _fails(how):
    """A reader that does what no reader may: the harness has to notice."""

    def read(data):
        if data[-1:] == b"!":
            how()

    return read


def _raise_lines():
    from fmknn.errors import ModelFileError

    raise ModelFileError("two\nlines")


def _beyond_the_end():
    import numpy as np

    from fmknn._numba import kernel

    kernel(_read_at)(np.zeros(3), 3)


def _read_at(array, at):
    return array[at]


def _canary(name, how):
    def mutate(rng, corpus):
        return b"!" if rng.random() < 0.2 else b"."

    name = f"canary-{name}"
    return Reader(name, list, mutate, _fails(how), ("ModelFileError",), _plain_bound)


READERS = {
    reader.name: reader
    for reader in [
        Reader(
            "read_records", recordio_corpus, recordio_case, read_records, ("RecordIOError",),
            _plain_bound, recordio_genuine,
        ),
        Reader(
            "read_matrix", recordio_corpus, recordio_case, read_matrix, ("RecordIOError",),
            _plain_bound, recordio_genuine,
        ),
        Reader(
            "read_params", params_corpus, params_case, read_params, ("ModelFileError",),
            _limited_bound,
        ),
        Reader(
            "read_artifact", artifact_corpus, artifact_case, read_artifact,
            ("ModelFileError", "DivergenceError"), _limited_bound, artifact_genuine,
        ),
        Reader(
            "parse_answers", answers_corpus, answers_case, parse_answers, ("AnswerError",),
            _plain_bound, answers_genuine,
        ),
        Reader("training_history", log_corpus, log_case, training_history, (), _plain_bound),
        Reader(
            "storage.load", storage_corpus, storage_case, storage_load, ("ModelFileError",),
            _plain_bound,
        ),
        Reader(
            "fmknn.load", model_corpus, storage_case, model_load, ("ModelFileError",), _model_bound
        ),
        _canary("crash", os.abort),
        _canary("hang", lambda: time.sleep(3600)),
        _canary("memory", lambda: bytes(1 << 22)),
        _canary("type", lambda: {}["x"]),
        _canary("lines", _raise_lines),
        _canary("bounds", _beyond_the_end),
        _canary("warning", lambda: warnings.warn("overflow", RuntimeWarning, stacklevel=1)),
    ]
}  # fmt: skip


# --- the command -----------------------------------------------------------------------------


def table(reports):
    """Return the counts as lines of text."""
    lines = [
        f"{'reader':17}{'cases':>8}  {'accepted':>8}  {'faults':>6}  {'slowest':>9}  largest peak"
    ]
    for report in reports:
        (seconds, slow), (part, peak, large) = report.slowest, report.largest
        rest = [(name, n) for name, n in report.outcomes.most_common() if name[0].isupper()]
        refused = ", ".join(f"{n:,} {name}" for name, n in rest) or "none"
        lines.append(
            f"{report.reader:17}{report.cases:>8,}  {report.outcomes['accepted']:>8,}  "
            f"{report.outcomes['fault']:>6,}  {seconds:>7.3f} s  {part:.2f} of the bound "
            f"({peak / 1e6:.1f} MB)  [cases {slow}, {large}]  refused: {refused}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=list(READERS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one, with a full traceback")
    parser.add_argument("--save", help="write the input of --case to this file")
    options = parser.parse_args()
    if options.case is not None:
        if options.reader is None:
            parser.error("--case needs --reader")
        reader = READERS[options.reader]
        data = one_case(reader, reader.corpus(), options.seed, options.case)
        if options.save:
            Path(options.save).write_bytes(data)
        print(f"{len(data)} bytes, begins with {data[:40]!r}")
        warnings.simplefilter("error")
        reader.read(data)
        print("accepted")
        return 0
    start = time.perf_counter()
    names = [options.reader] if options.reader else list(WEIGHTS)
    reports = run(options.cases, options.seed, names, options.jobs)
    print(*table(reports), sep="\n")
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("numpy", "scipy", "numba")]
    total = sum(report.cases for report in reports)
    print(
        f"{total:,} cases, seed {options.seed}, {time.perf_counter() - start:.0f} s, "
        f"Python {platform.python_version()}, {', '.join(versions)}, {platform.platform()}"
    )
    faults = [fault for report in reports for fault in report.faults]
    kinds = Counter(fault.what.split("(")[-1] for fault in faults)
    shown = Counter()
    for fault in faults:
        kind = fault.what.split("(")[-1]
        shown[kind] += 1
        if shown[kind] <= 3:
            print(f"\n{fault.reader} case {fault.case} ({kinds[kind]} alike): {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        reader_name, *numbers, limit, log_path = sys.argv[2:]
        work(reader_name, *map(int, numbers), float(limit), log_path)
    else:
        sys.exit(main())
