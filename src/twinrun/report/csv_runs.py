"""Runs from CSV tables as people have them: a row per run or one column per model; what would be misread is refused."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from twinrun.report.evidence import MOST_GROUPS, Runs, few, paired_runs, published_of, with_published
from twinrun.study.errors import InputError, plural

MEANS_ALONE = "with means alone: twinrun compare 0.912 0.921 --images N --sd SD, for accuracies"
SUMMARIES = {"mean", "avg", "average", "std", "sd", "median", "min", "max"}  # in place of a seed


def table_runs(path: Path, names: Sequence[str], *, metric: str | None, by: str | None, pair: str | None) -> Runs:
    """Groups from a CSV table: values of `metric` by the column `by`, or the columns that `names` names.

    `pair` is the column whose equal values make pairs. Raises InputError for a missing column, a cell without a number,
    two rows of one group with one value of `pair`, and groups that are not there.
    """
    columns, rows = _read_csv(path)
    if by is None:
        wanted, published = published_of(names, columns)
        if len(wanted) + len(published) < 2:
            raise InputError(
                f"{path}: which values are to be compared?",
                f"name two columns, or --metric and --by; columns: {', '.join(columns)}",
            )
        if metric is not None:
            raise InputError("--metric without --by", "name the column that says which group a row is of: --by model")
        _require(path, columns, wanted)
        metric = ""
        cells = {name: [(row, name) for row in _filled(rows, name, anywhere=pair is not None)] for name in wanted}
    else:
        if metric is None:
            raise InputError(f"--by {by} without --metric", f"which column holds the numbers? {', '.join(columns)}")
        _require(path, columns, [by])
        groups: dict[str, list[tuple[dict[str, str], str]]] = {}
        for row in rows:
            groups.setdefault(row[by], []).append((row, metric))
        wanted, published = published_of(names, groups)
        absent = [name for name in wanted if name not in groups]
        if absent:
            raise InputError(f"{path}: no row has {by} {absent[0]!r}", f"there are: {few(sorted(groups))}")
        cells = {name: groups[name] for name in (wanted or groups)}
        if len(cells) > 1 and max(map(len, cells.values())) == 1 and pair is None:
            raise InputError(
                f"{path}: {by} has another value in each row: {len(cells)} groups of one run each",
                f"name the column that several runs share, such as the model; {MEANS_ALONE}; "
                f"columns: {', '.join(columns)}",
            )
    if len(cells) > MOST_GROUPS:
        raise InputError(f"{path}: {len(cells)} groups make {math.comb(len(cells), 2):,} pairs",
                         f"name up to {MOST_GROUPS} of them: {few(list(cells))}")  # fmt: skip
    _require(path, columns, [*([metric] if metric else []), *([pair] if pair else [])])
    if len(cells) + len(published) < 2:
        raise InputError(f"{path}: one group, {by} {next(iter(cells))!r}", "a comparison needs two")
    return with_published(_of_cells({name: (path, rows) for name, rows in cells.items()}, metric, pair, by), published)


def tables_runs(paths: Sequence[Path], *, metric: str | None, pair: str | None) -> Runs:
    """A group from each of several CSV tables, under the table's name: its values of `metric`, paired by `pair`."""
    cells: dict[str, tuple[Path, list[tuple[dict[str, str], str]]]] = {}
    for path in paths:
        columns, rows = _read_csv(path)
        if metric is None:
            raise InputError("several tables without --metric", f"which column holds the numbers? {', '.join(columns)}")
        _require(path, columns, [metric, *([pair] if pair else [])])
        if any(path.samefile(other) for other, _ in cells.values()):
            raise InputError(
                f"{path} is named twice", "name two different tables, or two groups of this one with --by COLUMN"
            )
        cells[str(path)] = path, [(row, metric) for row in rows]
    return _of_cells(cells, metric or "", pair)


def _of_cells(
    cells: Mapping[str, tuple[Path, list[tuple[dict[str, str], str]]]],
    metric: str,
    pair: str | None,
    by: str | None = None,
) -> Runs:
    """The values of each group, in pairs where the column `pair` is named."""
    values = {name: [_number(path, row, column) for row, column in group] for name, (path, group) in cells.items()}
    seeds = {name: _seeds(group, by) for name, (_, group) in cells.items()}
    for name, (path, group) in cells.items():
        for row, _ in group:
            for seed in seeds[name]:
                if row[seed].lower() in SUMMARIES:
                    raise InputError(
                        f"{path}, line {row['']}: {seed} is {row[seed]!r}", "a row is one run: leave this out"
                    )
    if pair is None:
        return Runs(values, metric, notes=_repeated(cells, metric, seeds))
    keyed: dict[str, dict[str, float]] = {}
    for name, (path, group) in cells.items():
        keyed[name] = {}
        for (row, _), value in zip(group, values[name], strict=True):
            if (key := _key(row[pair])) in keyed[name]:
                apart = ", ".join(_differing([row for row, _ in group], metric, [pair]))
                raise InputError(
                    f"{path}: {name} has two rows with {pair} {row[pair]!r}",
                    "a pair has one run of each group"
                    + (f"; such rows differ in {apart}: keep those of one value" if apart else ""),
                )
            keyed[name][key] = value
    return paired_runs(keyed, metric, pair)


def _key(text: str) -> str:
    """What pairs go by: a whole number, however it is written, or the text.

    >>> [_key(text) for text in ("7", "07", "7.0", "7.5", "seed_7")]
    ['7', '7', '7', '7.5', 'seed_7']
    """
    return str(int(float(text))) if re.fullmatch(r"\d{1,15}(\.0*)?", text) else text


def _differing(rows: Sequence[Mapping[str, str]], metric: str, seeds: Sequence[str]) -> list[str]:
    """The columns with few values in which rows of one seed differ, such as the data set or the epoch."""
    differing = []
    for column in rows[0]:
        several = len({row[column] for row in rows}) <= len(rows) / 2
        if column not in ("", metric, *seeds) and several:
            by_seed: dict[tuple[str, ...], set[str]] = {}
            for row in rows:
                by_seed.setdefault(_keys(row, seeds), set()).add(row[column])
            if max(map(len, by_seed.values())) > 1:
                differing.append(column)
    return differing


def _keys(row: Mapping[str, str], seeds: Sequence[str]) -> tuple[str, ...]:
    return tuple(_key(row[seed]) for seed in seeds)


def _seeds(group: Sequence[tuple[Mapping[str, str], str]], by: str | None) -> list[str]:
    """The column `seed`, else all that end in it, which together make a run's seed; never what is compared.

    >>> _seeds([({"seed": "1", "data_seed": "7"}, "f1")], None), _seeds([({"seed": "1"}, "f1")], "seed")
    (['seed'], [])
    """
    compared = {by, *(column for _, column in group)}
    seeds = [key for row, _ in group[:1] for key in row if key.lower().endswith("seed") and key not in compared]
    return [key for key in seeds if key.lower() == "seed"] or seeds


def _repeated(
    cells: Mapping[str, tuple[Path, list[tuple[dict[str, str], str]]]], metric: str, seeds: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """A note where a group has several rows of one seed: those are not independent runs."""
    for name, (_, group) in cells.items():
        rows, columns = [row for row, _ in group], seeds[name]
        if not columns or len(keys := {_keys(row, columns) for row in rows}) == len(rows):
            continue
        apart = _differing(rows, metric, columns)
        return (
            f"{name} has {len(rows)} rows of {plural(len(keys), 'value')} of {' and '.join(columns)}"
            f"{', which differ in ' + ', '.join(apart) if apart else ''}: rows that share a seed are not independent "
            "runs, and the interval is not to be trusted; keep one row of each seed, or their mean",
        )
    return ()


def _filled(rows: Sequence[dict[str, str]], column: str, *, anywhere: bool) -> list[dict[str, str]]:
    """The rows in which a column of a wide table has a value: without the empty ones at its end, or `anywhere`."""
    filled = [place for place, row in enumerate(rows) if row[column].strip()]
    return [rows[place] for place in filled] if anywhere else list(rows[: filled[-1] + 1 if filled else 0])


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a CSV table")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if columns:
                columns[0] = re.sub("^# +", "", comment := columns[0])  # numpy.savetxt begins its header so
            rows = [{**{key: value.strip() if key else value for key, value in row.items()},
                     "": str(reader.line_num)} for row in reader]  # fmt: skip
            stream.seek(0)
            if _open_quote(stream):
                raise InputError(f"{path}: a quote that is never closed: it would take all rows after it", "close it")
            twice = [name for name, count in Counter(columns).items() if count > 1 and name]
            if twice:
                raise InputError(f"{path}: two columns are called {twice[0]!r}", "give each column a name of its own")
            longer = next((row for row in rows if None in row), None)
            if longer and len(columns) == 1 and comment.startswith("#"):
                raise InputError(f"{path}: its first line is a comment", "make the first line the column names")
            if longer and not (len(columns) == 1 and ";" in columns[0]):
                raise InputError(
                    f"{path}, line {longer['']}: more cells than the {len(columns)} columns of the first line",
                    "write decimals with a point, and quote a text that holds a comma",
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV table in UTF-8 ({error})", "save it as CSV in UTF-8") from error
    parted = next((mark for mark in (";", "\t") if len(columns) == 1 and mark in columns[0]), None)
    if parted:
        decimal = ", decimal=','" if parted == ";" else ""
        raise InputError(
            f"{path}: its columns are parted by {'semicolons' if parted == ';' else 'tabs'}",
            "save it with commas between the columns and points in the decimals; by pandas: "
            f"pd.read_csv({path.name!r}, sep={parted!r}{decimal}).to_csv('commas.csv', index=False)",
        )
    if not rows:
        raise InputError(f"{path}: no rows", "the first line names the columns, one row a run follows")
    return columns, rows


def _open_quote(lines: Iterable[str]) -> bool:
    try:
        deque(csv.reader(lines, strict=True), maxlen=0)
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _require(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            raise InputError(f"{path}: no column {name!r}", f"columns: {', '.join(columns)}")


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {row['']}: {column} is {row[column]!r}, no number", _instead_of(row[column]))
    return value


def _instead_of(cell: str) -> str:
    """What to do about a cell that is no number.

    >>> _instead_of("90.35 %"), _instead_of("0,9035")
    ('leave the percent sign out', 'write decimals with a point, and thousands without a mark')
    """
    if re.fullmatch(r"[-+]?[\d.,]+ *%", cell):
        return "leave the percent sign out"
    if re.fullmatch(r"[-+]?[\d.]*,[\d.,]+", cell):
        return "write decimals with a point, and thousands without a mark"
    if "±" in cell or "+-" in cell or "+/-" in cell:
        return f"each row is one run, not their mean; {MEANS_ALONE}"
    return "a run that failed is a result, too: give it its number, or leave its row out and say so"
