"""Valid files with a few bytes changed: whatever is wrong with them ends in one sentence, never in a traceback."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as Pillow
from safetensors.numpy import save_file
from tests.collect.synthetic import CODE, Synthetic, as_an_older_version_collected, write_study
from tests.collect.test_first_difference import FOUND
from tests.data.readers.test_cbis_ddsm import dicom

from twinrun.collect.artifacts import read_curve, read_features, read_predictions, read_weights
from twinrun.collect.checks import read_unfinished
from twinrun.collect.collect import collect
from twinrun.collect.first_difference import read_first_difference, write_first_difference
from twinrun.collect.importing import Source, import_results, twins_sources
from twinrun.collect.load import require_as_collected
from twinrun.collect.study import load_study
from twinrun.data.archives import open_archive
from twinrun.data.decode import decode_picture
from twinrun.data.packed import load_packed
from twinrun.data.readers.cbis_pixels import decode_dicom
from twinrun.data.readers.cifar10 import load_pickle
from twinrun.data.tables import read_table
from twinrun.export.crate import METADATA, check_crate
from twinrun.fetch.download import _Part
from twinrun.inspect.audit import step_of_audit
from twinrun.inspect.cost import SCHEMA as COST_SCHEMA
from twinrun.inspect.cost import Measure, bits, measure_blocks, times
from twinrun.inspect.cudnn.devices import find_card, known_cards, sourced
from twinrun.inspect.ladder import Ladder
from twinrun.launch.slurm import _site
from twinrun.launch.verify import read_expected
from twinrun.report.csv_runs import table_runs
from twinrun.report.evidence import twins_runs
from twinrun.report.index import ANALYSIS_SCHEMA, read_index
from twinrun.report.section import Answer, Row
from twinrun.report.sections.energy import unfinished
from twinrun.report.table import Column
from twinrun.study.errors import IncompleteError, InputError, MismatchError, OutOfMemoryError, TwinrunError
from twinrun.study.files import digest, sha256_file, write_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import seal
from twinrun.training import kept_model
from twinrun.training.checkpoint import peek_checkpoint
from twinrun.twins import golden
from twinrun.twins.contents import read_contents
from twinrun.twins.metrics import read_metric
from twinrun.twins.running import Twin

MUTANTS = 100  # of each file from outside; a file of ours has schema and seal before anything reads on
OF_OURS = 25
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
NOTHING_ODD = {"RGB": ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"), "P": ("PNG", "GIF"), "1": ("TIFF", "PPM")}


def picture(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(PIXELS).convert(mode).save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG") else {}))
    return buffer.getvalue()


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/gr\u00fcn.txt", b"x" * 300)
            archive.writestr("b.txt", b"y" * 30)
    else:
        form = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "gz": tarfile.PAX_FORMAT}[kind]
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "gz" else "w", format=form) as tar:
            for name in ("a/gr\u00fcn.txt", "b" * 120):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 30, 1.5 if form == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(b"y" * 30))
    return buffer.getvalue()


def read_archive(content: bytes, folder: Path) -> None:
    (folder / "x").write_bytes(content)
    with open_archive(folder / "x") as archive:
        for name in archive.names:
            archive.read(name)


FILES: dict[str, tuple[bytes, Callable[[bytes, Path], object]]] = {
    f"{mode}.{kind}": (picture(kind, mode), lambda content, _: decode_picture(content, "x"))
    for mode, kinds in NOTHING_ODD.items()
    for kind in kinds
}
FILES |= {kind: (packed(kind), read_archive) for kind in ("zip", "pax", "gnu", "gz")}
FILES |= {
    "dicom": (dicom(np.arange(30, dtype=np.uint16).reshape(5, 6)), lambda content, _: decode_dicom(content, "x")),
    "csv": ('path,label,"split"\na.png,"\u00e4,1",train\n'.encode(), lambda c, _: read_table(c, "x", ("path",), "")),
}
for _protocol in (2, 4):
    _batch = pickle.dumps({b"data": PIXELS.reshape(12, 30), b"labels": [0, 300, -1]}, _protocol)
    FILES[f"pickle {_protocol}"] = (_batch, lambda content, _: load_pickle(content, "x"))


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes of meaning such as 0 and 255, digits, pieces left out, doubled or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(changed)), rng.randint(1, 9)
        kind = rng.randrange(6)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b"-", b"\\", b","]) * length
        elif kind == 2:
            changed[place : place + length] = rng.randbytes(length)
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        elif len(changed) > 1:
            del changed[max(1, place) :]
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)


ODD: tuple[Any, ...] = (
    [], {}, None, "", "x", "\x1b[2J", -1, 0, 10**400, 1e300, True, [[]], {"x": 1}, ["x"], "../..", "nan", 2**63,
)  # fmt: skip
TOO_LARGE, DEEP = b"1e999", b"[" * 5000


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file become another kind of value, gone, infinite or very deep; or bytes changed."""
    if rng.random() < 0.25:
        return mutate(content, rng)
    document = json.loads(content)
    places = list(_places(document))
    holder, key = rng.choice(places) if places else ([document], 0)
    kind = rng.random()
    if kind < 0.2:
        del holder[key]
        return json.dumps(document).encode()
    holder[key] = rng.choice(ODD) if kind < 0.9 else "@mark@"
    return json.dumps(document).encode().replace(b'"@mark@"', rng.choice([TOO_LARGE, DEEP, b"NaN", b"-Infinity"]))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def refusal(read: Callable[[], object], mutant: bytes, number: int) -> bool:
    """Whether a mutant was refused; an AssertionError unless it was read, or refused in one sentence."""
    try:
        read()
    except TwinrunError as error:
        memory = isinstance(error, OutOfMemoryError)
        odd = [letter for letter in error.message if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cs")]
        assert (memory, odd) == (False, []), f"mutant {number}: {error!r}"  # noqa: PT017
        return True
    except Exception as error:
        raise AssertionError(f"mutant {number}: {mutant[:3000]!r}") from error
    return False


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_a_mutant_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, read = FILES[name]
    read(content, tmp_path)
    rng = random.Random(name)
    mutants = [mutate(content, rng) for _ in range(MUTANTS)]
    refused = sum(refusal(partial(read, mutant, tmp_path), mutant, n) for n, mutant in enumerate(mutants))
    assert refused > MUTANTS // 20


def _study(folder: Path) -> tuple[Params, Layout]:
    return read_params(folder / "params.yaml"), Layout(folder)


def _standing(folder: Path, *, reseal: bool = False) -> None:
    """As `status`, `sweep`, `export` and `collect` look at records."""
    params, layout = _study(folder)
    run = params.runs[0]
    path = layout.run(run) / "record.json"
    with suppress(ValueError, TypeError, AttributeError, RecursionError):  # where it is JSON still
        body = json.loads(path.read_text())
        if reseal:
            body["seal"] = seal(body)
            path.write_text(json.dumps(body))
            there = layout.run(run) / "measured.json"
            there.write_text(json.dumps(json.loads(there.read_text()) | {"record_sha256": sha256_file(path)}))
    params.state_of(run, layout, digest(run.task), CODE)
    collect(params, layout, code_digest=CODE, check_only=True)


def _loaded(folder: Path) -> None:
    study = load_study(folder / "collected")
    for read in (study.labels, study.probabilities, study.heads):
        read("digits")


def _no_block() -> AbstractContextManager[Measure]:
    raise IncompleteError("nothing is measured here")


def _costs(folder: Path) -> None:
    for bits_of in (times, bits):
        bits_of(measure_blocks(folder / "cost.json", {}, Ladder({}, "a", "a"), 1, _no_block))


def _golden(path: Path) -> None:
    with suppress(AssertionError):  # another fingerprint, or none
        golden.check(path, "n", np.zeros(1), update=False)


def _twin(folder: Path, name: str, metric: str) -> None:
    """One output of two twins, compared, and read for its metric."""
    read_contents(folder / name)
    if metric:
        read_metric(Twin(1, 0, folder, 0, 1.0, ""), f"{name}:{metric}")


def _imported(folder: Path, name: str) -> None:
    import_results([Source(folder / name)], folder / "made" / "collected", study="s")
    load_study(folder / "made" / "collected")


# Each kind of file of ours, where it lies in a folder that `ours` makes, and who reads it.
NAMED = {"metric": "accuracy", "by": "model", "pair": "seed"}
RUN = "runs/digits/adam/0/det_1"
OURS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "params.yaml": ("params.yaml", lambda folder: _study(folder)),
    "record, edited": (f"{RUN}/record.json", _standing),
    "record, sealed again": (f"{RUN}/record.json", partial(_standing, reseal=True)),
    "measured.json": (f"{RUN}/measured.json", _standing),
    "curve.csv": (f"{RUN}/curve.csv", lambda folder: read_curve(folder / RUN)),
    "predictions.npz": (f"{RUN}/predictions.npz", lambda folder: read_predictions(folder / RUN)),
    "features": (f"{RUN}/predictions.npz", lambda folder: read_features(folder / RUN)),
    "weights.safetensors": (f"{RUN}/weights.safetensors", lambda folder: read_weights(folder / RUN)),
    "attempt.json": ("work/t/a/0/det_1/attempt.json", lambda folder: read_unfinished(Layout(folder))),
    "manifest.json": ("prepared/shapes/manifest.json", lambda folder: load_packed(folder / "prepared/shapes", "0")),
    "manifest of a study": ("prepared/digits/manifest.json", _standing),
    "images.npy": ("prepared/shapes/images.npy", lambda folder: load_packed(folder / "prepared/shapes", "0")),
    "study.json": ("collected/study.json", _loaded),
    "digests.json": ("digests.json", require_as_collected),
    "results.csv": ("collected/results.csv", _loaded),
    "curves.csv": ("collected/curves.csv", _loaded),
    "measured.csv": ("collected/measured.csv", _loaded),
    "unfinished.csv": ("collected/unfinished.csv", lambda folder: unfinished(load_study(folder / "collected"))),
    "labels.npy": ("collected/digits/labels.npy", _loaded),
    "probabilities.npy": ("collected/digits/probabilities.npy", _loaded),
    "heads.npy": ("collected/digits/heads.npy", _loaded),
    "located pair": ("pair.json", lambda folder: read_first_difference(folder / "pair.json")),
    "analysis.json": ("analysis.json", lambda folder: read_index(folder / "analysis.json")),
    "fingerprints.json": ("expected/fingerprints.json", lambda folder: read_expected(Layout(folder))),
    "twins.json": ("twins.json", lambda folder: (twins_runs([folder], None), twins_sources(folder, "*.csv"))),
    "cost": ("cost.json", _costs),
    "golden fingerprints": ("golden.json", lambda folder: _golden(folder / "golden.json")),
    "RO-Crate": ("ro-crate-metadata.json", check_crate),
    "audit": ("audit.json", lambda folder: step_of_audit(folder / "audit.json")),
    "card": ("card.json", lambda folder: find_card(str(folder / "card.json"))),
    "part of a download": ("x.json", lambda folder: _Part(folder / "x", "u")),
    "site lines": ("array.sbatch", lambda folder: _site(folder / "array.sbatch")),
    "checkpoint": ("checkpoint.safetensors", lambda folder: peek_checkpoint(folder / "checkpoint.safetensors")),
    "trained network": ("model.safetensors", lambda folder: kept_model._read(folder / "model.safetensors")),
    "imported CSV": ("table.csv", lambda folder: _imported(folder, "table.csv")),
    "imported npz": ("table.npz", lambda folder: _imported(folder, "table.npz")),
    "compared table": ("metrics.csv", lambda folder: table_runs(folder / "metrics.csv", (), **NAMED)),
    "twin's JSON": ("out.json", lambda folder: _twin(folder, "out.json", "a.b")),
    "twin's JSON lines": ("out.jsonl", lambda folder: _twin(folder, "out.jsonl", "a")),
    "twin's CSV": ("out.csv", lambda folder: _twin(folder, "out.csv", "acc")),
    "twin's npz": ("out.npz", lambda folder: _twin(folder, "out.npz", "")),
    "twin's safetensors": ("out.safetensors", lambda folder: _twin(folder, "out.safetensors", "")),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with one valid file of each kind."""
    root = tmp_path_factory.mktemp("ours")
    small = Synthetic(tasks=("digits",), optimizers=("adam",), seeds=(0,), n_test=6, epochs=1, feature_images=2)
    params, layout = write_study(root, small)
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    write_json(root / "work/t/a/0/det_1/attempt.json", {"identity": "i", "entropy": None, "number": 2})
    collect(params, layout, code_digest=CODE)
    as_an_older_version_collected(layout.collected)  # so that what is read is looked at, and not its digest alone
    shutil.copytree(tiny_folder / "prepared/shapes", root / "prepared/shapes")
    sha = "a" * 64
    write_first_difference(root / "pair.json", FOUND)
    write_json(
        root / "expected/fingerprints.json",
        {"schema": 1, "runs": {"a": {"params": sha, "data": sha, "device": "cpu", "initial": sha, "epochs": [sha]}}},
    )
    twin = {"number": 1, "seed": 0, "folder": "twin_1"}
    metric = {"name": "acc", "values": {"twin 1": 0.5, "twin 2": 0.75}}
    write_json(root / "twins.json", {"arm": "nd", "metrics": [metric], "twins": [twin]})
    (root / "twin_1").mkdir()
    (root / "twin_1/a.csv").write_text("x")
    with suppress(IncompleteError):
        measure_blocks(root / "cost.json", {}, Ladder({}, "a", "a"), 1, _no_block)
    measured = {
        "rung": "a",
        "step_seconds": [0.1],
        "clock": "wall",
        "fingerprint": sha,
        "data": sha,
        "host": {"cpu": "x", "gpu": None},
        "versions": {"torch": "2"},
    }
    identity = digest([COST_SCHEMA, {}, []])
    write_json(root / "cost.json", {"identity": identity, "blocks": [[measured, measured]]})
    golden.check(root / "golden.json", "n", np.zeros(1), update=True)
    write_json(root / METADATA, {"@graph": [{"@id": "params.yaml", "sha256": sha256_file(root / "params.yaml")}]})
    write_json(
        root / "audit.json",
        {
            "convolutions": [],
            "device": "cpu",
            "findings": [
                {"phase": "forward", "operation": "o", "module": "m", "what": "w", "instead": "i", "level": "bad"}
            ],
        },
    )
    write_json(root / "digests.json", {"audit.json": sha256_file(root / "audit.json")})
    write_json(root / "card.json", {key: value for key, (value, _) in sourced(known_cards()[0]).items()})
    write_json(root / "x.json", {"url": "u", "validator": "v", "total": 3})
    (root / "array.sbatch").write_text("#SBATCH --time=1:00\n# a word\n#SBATCH -p gpu\n")
    tensors = {"a": np.zeros(3, np.float32)}
    save_file(tensors, root / "checkpoint.safetensors", {"progress": json.dumps({"identity": "i", "epoch": 1})})
    save_file(tensors, root / "model.safetensors", {"twinrun": json.dumps({"run": "r", "classes": ["a"]})})
    save_file(tensors, root / "out.safetensors", {"a": "b"})
    np.savez(root / "out.npz", a=np.arange(3))
    soft = np.full((2, 3, 2), 0.5, np.float32)
    np.savez(root / "table.npz", probabilities=soft, labels=np.array([0, 1, 1]), seed=np.arange(2))
    (root / "table.csv").write_text("seed,example,label,p_a,p_b\n1,x,a,.25,.75\n1,y,b,1,0\n2,x,a,1,0\n2,y,b,0,1\n")
    (root / "metrics.csv").write_text("model,seed,accuracy\na,1,.5\na,2,.6\nb,1,.7\nb,2,.75\n")
    write_json(root / "out.json", {"a": {"b": 0.5}, "c": [1, 2]})
    (root / "out.jsonl").write_text('{"a": 1}\n{"a": 2.5, "b": [1]}\n')
    (root / "out.csv").write_text("epoch,acc\n1,.5\n2,.75\n")
    analyzed = {"name": "t", "thesis_name": "", "title": "T", "caption": "c", "command": "x"}
    index = {
        "schema": ANALYSIS_SCHEMA, "study_digest": sha,
        "sections": [{"name": "s", "title": "S", "about": "", "filled_by": "", "folded": False, "sentences": ["x"],
                      "answers": [Answer("n", "q", "v", "w", (Row("l", "n", ""),))._asdict()],
                      "tables": ["t"], "figures": ["t"]}],
        "tables": [{**analyzed, "notes": [], "columns": [Column("a", "A", ".1f", "m")._asdict()], "filled": True,
                    "filled_by": "", "file": "tables/t.csv", "files": ["tables/t.csv"], "main": True,
                    "for_programs": False}],
        "figures": [{**analyzed, "alt": "", "files": ["figures/t.svg", "figures/t.png"]}],
        "digests": dict.fromkeys(("tables/t.csv", "figures/t.svg", "figures/t.png"), sha),
    }  # fmt: skip
    write_json(root / "analysis.json", index | {"seal": seal(index)})
    return root


# What is damaged is as good as none, or is compared as bytes.
NEVER_REFUSED = ("attempt.json", "part of a download", "checkpoint", "twin's npz", "twin's safetensors")


@pytest.mark.parametrize("name", OURS)
def test_a_mutant_of_ours_is_read_or_refused_in_one_sentence(name: str, whole: Path) -> None:
    place, read = OURS[name]
    path, beside = whole / place, whole / Path(place).with_name("measured.json")
    content, kept = path.read_bytes(), beside.read_bytes() if beside.exists() else b""
    with suppress(MismatchError, InputError, IncompleteError):
        read(whole)
    rng, refused = random.Random(name), 0
    change = mutate_json if path.suffix == ".json" else mutate
    try:
        for number in range(OF_OURS):
            mutant = change(content, rng)
            path.write_bytes(mutant)
            refused += refusal(partial(read, whole), mutant, number)
            if kept:
                beside.write_bytes(kept)
    finally:
        path.write_bytes(content)
    assert refused or name in NEVER_REFUSED
