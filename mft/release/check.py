"""Compare the files of a folder with the hashes that were published for them, and name each that is damaged, missing or not listed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mft.errors import CheckFailed, DataError
from mft.files import MANIFEST, SUMS, listed_files, read_json, write_manifest
from mft.hashes import hash_file
from mft.release.published import Published, read_published

Status = Literal["ok", "damaged", "missing", "unlisted"]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file beside what was published of it. `detail`: which source says what, where the status is not `ok`."""

    path: str
    status: Status
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    detail: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        return f"{self.path}: {self.detail}"


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """Every file of a folder, by name; `sources` are the files whose hashes were compared."""

    folder: Path
    sources: tuple[str, ...]
    files: tuple[FileCheck, ...]
    unlisted_is_fault: bool = True

    @property
    def faults(self) -> list[FileCheck]:
        """The files that are not as published."""
        return [file for file in self.files if file.status != "ok" and (self.unlisted_is_fault or file.status != "unlisted")]

    @property
    def ok(self) -> bool:
        """Whether every file is there and as it was."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """`ok`, `folder`, `sources`, `files[]`."""
        return {"ok": self.ok, "folder": str(self.folder), "sources": list(self.sources), "files": [asdict(file) for file in self.files]}

    def require(self) -> None:
        """Raises CheckFailed with a line for each fault; its result is `to_json()`."""
        if self.ok:
            return
        failed = CheckFailed("\n".join(f"{self.folder / file.path}: {file.detail}" for file in self.faults))
        failed.result = self.to_json()
        raise failed


def check_folder(folder: Path, against: Path | None = None) -> FolderCheck:
    """Hash every file once and compare it with `manifest.json`, SHA256SUMS and MD5SUMS; with `against` with that file alone.

    A published card lists the files that its author chose, so that with `against` a file that it does not list is no fault.

    Raises:
        DataError: no such folder; `against` holds no hashes. CheckFailed: the folder has nothing to compare with, or it is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if against is not None:
        return _compare(folder, {str(against): read_published(against)}, unlisted_is_fault=False)
    sources: dict[str, list[Published]] = {}
    if (folder / MANIFEST).is_file():
        sources[MANIFEST] = _of_manifest(folder / MANIFEST)
    try:
        sources |= {name: read_published(folder / name) for name in SUMS if (folder / name).is_file()}
    except DataError as error:
        raise CheckFailed(str(error)) from error
    if not sources:
        raise CheckFailed(f"{folder}: has neither {MANIFEST} nor {' nor '.join(SUMS)}; `mft manifest write` makes them")
    return _compare(folder, sources, unlisted_is_fault=True)


def write_hashes(folder: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write `manifest.json`, SHA256SUMS and MD5SUMS of a folder; what an older manifest says of its making is kept.

    Raises:
        DataError: no such folder, or nothing in it. CheckFailed: files are not as the older manifest lists them, unless `overwrite`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if not listed_files(folder):
        raise DataError(f"{folder}: holds no file")
    facts: dict[str, Any] = {"made_by": "mft manifest write"}
    if (folder / MANIFEST).is_file():
        found = _compare(folder, {MANIFEST: _of_manifest(folder / MANIFEST)}, unlisted_is_fault=False)
        if not overwrite and not found.ok:
            failed = CheckFailed("\n".join(f"{folder / file.path}: {file.detail}" for file in found.faults)
                                 + "\nnothing was written; --overwrite if these files are meant to be as they are now")
            failed.result = found.to_json()
            raise failed
        facts = {key: value for key, value in read_json(folder / MANIFEST).items() if key != "files"}
    return write_manifest(folder, facts, sums=True)


def _of_manifest(path: Path) -> list[Published]:
    try:
        files = read_json(path)["files"]
        return [Published(name, kind, facts[kind], 0) for name, facts in files.items() for kind in SUMS.values() if kind in facts]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckFailed(f"{path}: is damaged, or not a manifest of mft") from error


def _compare(folder: Path, sources: dict[str, list[Published]], *, unlisted_is_fault: bool) -> FolderCheck:
    wanted: dict[str, list[tuple[str, Published]]] = {}
    for source, entries in sources.items():
        for entry in entries:
            wanted.setdefault(entry.name, []).append((source, entry))
    present = listed_files(folder) + [name for name in (MANIFEST, *SUMS) if (folder / name).is_file() and name in wanted]
    names = sorted({*present, *wanted})
    checks = tuple(_check(folder, name, wanted.get(name, []), sources) for name in names)
    return FolderCheck(folder, tuple(sources), checks, unlisted_is_fault)


def _check(folder: Path, name: str, wanted: list[tuple[str, Published]], sources: Iterable[str]) -> FileCheck:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return FileCheck(name, "damaged", detail="lies outside the folder, so it is not read")
    if not path.is_file():
        return FileCheck(name, "missing", detail=f"missing; listed in {_joined(source for source, _ in wanted)}")
    found = hash_file(path)
    if not wanted:
        return FileCheck(name, "unlisted", **found, detail=f"not listed in {_joined(sources)}")
    wrong = [(source, entry) for source, entry in wanted if found[entry.kind] != entry.digest]
    if not wrong:
        return FileCheck(name, "ok", **found)
    strongest = max(entry.kind for _, entry in wrong)   # of md5 and sha256; one is enough to show
    digests = {entry.digest: None for _, entry in wrong if entry.kind == strongest}
    detail = f"damaged: its {strongest} is {found[strongest]}, listed as {_joined(digests)} in {_joined(source for source, _ in wrong)}"
    agreeing = {source for source, _ in wanted} - {source for source, _ in wrong}
    return FileCheck(name, "damaged", **found, detail=detail + (f"; {_joined(sorted(agreeing))} agrees with the file" if agreeing else ""))


def _joined(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
