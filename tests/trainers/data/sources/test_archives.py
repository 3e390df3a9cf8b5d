"""Zip and tar archives: unpacked once, whole, and nowhere but in their folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos_on_disk import (
    RATIOS,
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    zip_with_names,
)
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.data.sources import archives
from trainers.data.sources.archives import unpack
from trainers.errors import TrainerError
from trainers.files.suffixes import is_archive

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


def pack(folder: Path, archive: Path, inside: str = "") -> Path:
    """``archive`` of all files in ``folder``, below the folder ``inside``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [str(Path(inside) / p.relative_to(folder)) for p in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file, name in zip(files, names, strict=True):
                packed.write(file, name)
        return archive
    kind = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".txz": "w:xz"}.get(archive.suffix, "w:bz2")
    with tarfile.open(archive, kind) as packed:  # type: ignore[call-overload]
        for file, name in zip(files, names, strict=True):
            packed.add(file, name)
    return archive


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as packed:
        for member in members:
            packed.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def tar_member(name: str, size: int = 1, **values: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for key, value in values.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archive_of_class_folders_is_the_same_data_as_the_folder(tmp_path: Path, suffix: str) -> None:
    root = folder_of(tmp_path / "photos", a=4, b=4)
    plain, _ = build_manifest(source(root))
    archive = pack(root, tmp_path / f"photos{suffix}")
    manifest, report = build_manifest(source(archive))
    assert manifest.fingerprint == plain.fingerprint
    assert manifest.table["path"].tolist() == plain.table["path"].tolist()
    assert manifest.root.parent == (tmp_path / "cache" / "archives").resolve()
    assert (manifest.source, warnings_of(report)) == (str(archive), ())
    assert is_archive(archive.name.upper())


def test_archive_is_unpacked_once_and_a_changed_one_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "photos", a=2, b=2)
    archive = pack(root, tmp_path / "photos.zip")
    folder = unpack(archive, tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(archives, "_write_all", lambda *_: pytest.fail("unpacked twice"))
        assert unpack(archive, tmp_path / "cache") == folder
    folder_of(root, c=1)
    pack(root, archive)
    other = unpack(archive, tmp_path / "cache")
    assert other != folder
    assert sorted(p.name for p in other.iterdir()) == ["a", "b", "c"]
    assert not list(other.parent.glob(".*half"))


def test_archive_may_be_unpacked_by_several_at_once_and_heals_lost_files(tmp_path: Path) -> None:
    archive = pack(folder_of(tmp_path / "photos", a=20, b=20), tmp_path / "photos.tar.gz")
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: unpack(archive, tmp_path / "cache"), range(3)))
    assert len(set(folders)) == 1
    (folders[0] / "a" / "003.png").unlink()
    (folders[0] / "b" / "004.png").write_bytes(b"torn")
    unpack(archive, tmp_path / "cache")
    files = [p for p in folders[0].rglob("*") if p.is_file()]
    assert len(files) == 40
    assert all(p.read_bytes() == (tmp_path / "photos" / p.relative_to(folders[0])).read_bytes() for p in files)


def test_wrapping_folders_and_a_macs_leftovers_are_looked_through(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", a=4, b=4)
    (photos / ".DS_Store").write_bytes(b"x")
    (tmp_path / "all" / "__MACOSX" / "photos").mkdir(parents=True)
    (tmp_path / "all" / "__MACOSX" / "photos" / "._000.png").write_bytes(b"x")
    (tmp_path / "all" / "README.txt").write_text("photos")
    shutil.copytree(photos, tmp_path / "all" / "photos")
    manifest, report = build_manifest(source(pack(tmp_path / "all", tmp_path / "all.zip", "deep/er")))
    assert manifest.root.parts[-3:] == ("deep", "er", "photos")
    assert (manifest.classes, warnings_of(report)) == (("a", "b"), ())
    unpacked = [p.name for p in manifest.root.parents[2].rglob("*") if p.is_file()]
    assert len(unpacked) == 9


def test_table_in_an_archive_is_used_and_several_are_a_sentence(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    table_of(tmp_path / "t", rows)
    (tmp_path / "t" / "other.csv").write_text("name,price\n")
    manifest, report = build_manifest(source(pack(tmp_path / "t", tmp_path / "t.tgz", "top"), None))
    assert (len(manifest.table), manifest.root.name) == (12, "top")
    assert warnings_of(report) == (
        "not used: 1 table, top/other.csv (it has no columns path and label, but name, price).",
    )
    table_of(tmp_path / "t", rows, "second.parquet")
    text = error_of(source(pack(tmp_path / "t", tmp_path / "t.zip"), None))
    assert text.endswith(
        "t.zip holds several tables of photos: second.parquet, table.csv. Unpack it and pass one of them."
    )


def test_manifest_of_an_archive_finds_its_images_after_the_cache_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(folder_of(tmp_path / "photos", a=4, b=4), tmp_path / "photos.tar", "photos")
    manifest, _ = build_manifest(source(archive))
    manifest.write(tmp_path / "m.parquet")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "elsewhere"))
    again = Manifest.read(tmp_path / "m.parquet")
    assert (tmp_path / "elsewhere").resolve() in again.root.parents
    assert all(path.is_file() for path in again.paths())
    assert again.fingerprint == manifest.fingerprint
    shutil.rmtree(tmp_path / "elsewhere")
    pack(folder_of(tmp_path / "fewer", a=4, b=3), archive, "photos")
    with pytest.raises(
        TrainerError, match=r"1 image of the manifest cannot be found in .*photos\.tar any more: .*b/003"
    ):
        Manifest.read(tmp_path / "m.parquet")
    archive.unlink()
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(TrainerError, match=r"there is no folder, table or archive .*photos\.tar\."):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (tar_member("../evil.png"), "holds '../evil.png', which would be written outside its folder"),
        (tar_member("a/../../evil.png"), "which would be written outside its folder"),
        (tar_member("/evil.png"), "holds '/evil.png', which would be written outside its folder"),
        (tar_member("a/l.png", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "holds 'a/l.png', a link or a device"),
        (tar_member("a/h.png", 0, type=tarfile.LNKTYPE, linkname="a/1.png"), "holds 'a/h.png', a link or a device"),
        (tar_member("a/d.png", 0, type=tarfile.CHRTYPE), "holds 'a/d.png', a link or a device"),
        (tar_member("a/f.png", 0, type=tarfile.FIFOTYPE), "holds 'a/f.png', a link or a device"),
    ],
)
def test_unsafe_tars_are_refused_and_leave_nothing(tmp_path: Path, member: tarfile.TarInfo, sentence: str) -> None:
    archive = tar_of(tmp_path / "evil.tar", tar_member("a/1.png"), member)
    assert sentence in error_of(source(archive))
    assert not list(tmp_path.rglob("*.png"))


def test_unsafe_zips_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    for name, sentence in ((("../evil.png"), "outside its folder"), (link, "'a/link.png', a link or a device")):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
            packed.writestr("a/1.png", b"x")
            packed.writestr(name, b"/etc/passwd")
        assert sentence in error_of(source(tmp_path / "evil.zip"))
    assert not list(tmp_path.rglob("*.png"))


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/1.png", b"x")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


def damaged(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/1.png", b"pixels" * 100)
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(bytes(data))


def cut_short(path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w:bz2" if path.suffix == ".bz2" else "w:xz") as packed:
        packed.addfile(tar_member("a/1.png", 300_000), io.BytesIO(os.urandom(300_000)))
    path.write_bytes(path.read_bytes()[:100_000])


def zip_of(*names: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                packed.writestr(name, b"x")

    return write


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("x.zip", encrypted, "is encrypted; unpack it yourself and pass the folder."),
        ("x.zip", damaged, "cannot be read: Bad CRC-32 for file 'a/1.png'. Is it complete?"),
        ("x.zip", lambda path: path.write_bytes(b"no archive"), "cannot be read: File is not a zip file."),
        ("x.tar", lambda path: path.write_bytes(b"no archive"), "cannot be read: file could not be opened"),
        ("x.tar", lambda path: path.write_bytes(b""), "cannot be read: "),
        ("x.tar", lambda path: tar_of(path), "holds no files."),
        ("x.zip", zip_of("a/1.png", "a/./1.png"), "cannot be read: it holds 'a/1.png' twice. Is it complete?"),
        ("x.zip", zip_of("a", "a/1.png"), "cannot be read: 'a/1.png' cannot be a file's name here (File exists)."),
        ("x.zip", zip_of("a/1.png", "a"), "cannot be read: 'a' cannot be a file's name here (Is a directory)."),
        ("x.zip", zip_of("a", "a/b/1.png"), "cannot be read: 'a/b/1.png' cannot be a file's name here (Not a dir"),
        ("x.zip", zip_of(f"{'a' * 300}.png"), f"cannot be read: '{'a' * 60}...' cannot be a file's name here (File n"),
        ("x.tar.gz", cut_short, "cannot be read: "),
        ("x.tar.xz", cut_short, "cannot be read: "),
        ("x.tar.bz2", cut_short, "cannot be read: "),
    ],
)
def test_archives_that_cannot_be_read_are_sentences(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(tmp_path / name)
    text = error_of(source(tmp_path / name))
    assert sentence in text
    assert text.startswith(f"the archive {tmp_path / name}")
    assert not [p for p in (tmp_path / "cache").glob("archives/*") if not p.name.endswith(".lock")]


def test_archive_larger_than_the_disk_is_refused_before_it_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/1.png", bytes(50_000_000))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    usage = shutil.disk_usage(tmp_path)._replace(free=archives.FREE_BYTES + 10_000_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    text = error_of(source(tmp_path / "bomb.zip"))
    assert "unpacks to 50 MB or more, and the cache's disk has 10 MB to spare; free some space there" in text
    assert not list(tmp_path.rglob("*.png"))


def test_cache_that_cannot_be_written_and_an_unknown_kind_are_sentences(tmp_path: Path) -> None:
    archive = pack(folder_of(tmp_path / "photos", a=1), tmp_path / "photos.zip")
    (tmp_path / "file").write_text("x")
    text = error_of(DataSource(str(archive), RATIOS, tmp_path / "file"))
    assert "cannot be unpacked into the cache" in text
    assert "set ORCH_CACHE to another folder" in text
    (tmp_path / "x.7z").write_bytes(b"7z")
    assert "is neither a folder nor a table nor an archive; give" in error_of(source(tmp_path / "x.7z"))


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    archive = pack(folder_of(tmp_path / "photos", a=2, b=2), tmp_path / "photos.zip")
    folder = unpack(archive, tmp_path / "first")
    half = tmp_path / "second" / "archives" / f".{folder.name}.half"
    half.mkdir(parents=True)
    (half / "stray.png").write_bytes(b"x")
    again = unpack(archive, tmp_path / "second")
    assert sorted(p.name for p in again.rglob("*.png")) == ["000.png", "000.png", "001.png", "001.png"]


def test_a_size_below_nothing_does_not_lead_round_for_ever(tmp_path: Path) -> None:
    """A hidden member, which is passed over, whose size (in base 256) makes it its own successor."""
    header = bytearray(tar_member(".hidden", 0).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar_of(tmp_path / "x.tar", tar_member("a/1.png", 0))
    first = (tmp_path / "x.tar").read_bytes()[:512]
    (tmp_path / "x.tar").write_bytes(first + header + bytes(10240))
    try:
        tarfile.TarInfo("x")._block(-512)  # type: ignore[attr-defined]
    except tarfile.HeaderError:  # a later Python takes such a header for the end
        assert [p.name for p in unpack(tmp_path / "x.tar", tmp_path / "cache").rglob("*.*")] == ["1.png"]
    else:
        assert "cannot be read: '.hidden' has a negative size. Is it complete?" in error_of(source(tmp_path / "x.tar"))


def test_names_in_a_zip_are_files_below_its_folder(tmp_path: Path) -> None:
    zip_of("a/./1.png", "a//2.png")(tmp_path / "x.zip")
    folder = unpack(tmp_path / "x.zip", tmp_path / "cache")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png")) == ["a/1.png", "a/2.png"]
    (tmp_path / "cache" / "archives" / f".{folder.name}.half").write_text("in the way of unpacking again")
    assert unpack(tmp_path / "x.zip", tmp_path / "cache") == folder


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz"])
def test_what_is_no_plain_file_is_no_archive(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainerError, match="cannot be read: it is a pipe"):
        unpack(tmp_path / name, tmp_path / "cache")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(TrainerError, match="cannot be read: it is a device"):
        unpack(tmp_path / name, tmp_path / "cache")


def content(seed: int) -> bytes:
    place = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)).save(place, "PNG")
    return place.getvalue()


def classes_of(
    names: tuple[str, str], encoding: str, place: Path, given: str = ""
) -> tuple[tuple[str, ...], list[str]]:
    files = {f"{name}/{i}.png": content(100 * n + i) for n, name in enumerate(names) for i in range(3)}
    archive = zip_with_names(place / "names.zip", files, encoding)
    data = DataSource(str(archive), RATIOS, place / "cache", encoding=given)
    manifest, report = build_manifest(data)
    assert Manifest.read(_written(manifest, place)).classes == manifest.classes
    return manifest.classes, [text for text in report.warnings if "encoding" in text]


def _written(manifest: Manifest, place: Path) -> Path:
    manifest.write(place / "m.parquet")
    return place / "m.parquet"


@pytest.mark.parametrize(
    ("names", "encoding", "said"),
    [
        (("玻璃制品", "glass of ours"), "utf-8", ""),
        (("玻璃制品", "废旧纸张"), "gbk", "gb18030"),
        (("ガラスびん", "プラスチック"), "cp932", "cp932"),
        (("유리병과 유리컵", "플라스틱 종이"), "cp949", "cp949"),
        (("K\u00e4sek\u00e4stchen", "Gr\u00f6\u00dfenordnung"), "cp1252", "cp1252"),
        (("K\u00e4sek\u00e4stchen", "Gr\u00f6\u00dfenordnung"), "cp437", "cp437"),
        (("стеклотара", "бумага и картон"), "cp866", "cp866"),
    ],
)
def test_names_without_an_encoding_are_guessed_and_it_is_said(
    tmp_path: Path, names: tuple[str, str], encoding: str, said: str
) -> None:
    classes, warnings = classes_of(names, encoding, tmp_path)
    assert set(classes) == set(names)
    assert [text.partition("read as ")[2].partition(",")[0] for text in warnings] == ([said] if said else [])
    assert all("name the encoding in data.encoding or with --encoding." in text for text in warnings)


def test_a_named_encoding_is_taken_and_a_wrong_one_refused(tmp_path: Path) -> None:
    names = ("유리컵 둘", "종이컵 둘")
    assert classes_of(names, "cp949", tmp_path, "cp949") == (tuple(sorted(names)), [])
    data = DataSource(str(tmp_path / "names.zip"), RATIOS, tmp_path / "cache", encoding="ascii")
    assert "names.zip are not ascii: ordinal not in range(128) in b'" in error_of(data)


def test_names_with_backslashes_are_paths_and_lead_nowhere_else(tmp_path: Path) -> None:
    files = {f"photos\\{label}\\{i}.png": content(n * 10 + i) for n, label in enumerate("ab") for i in range(3)}
    manifest, _ = build_manifest(DataSource(str(zip_with_names(tmp_path / "w.zip", files)), RATIOS, tmp_path / "cache"))
    assert manifest.classes == ("a", "b")
    bad = zip_with_names(tmp_path / "bad.zip", {**files, "..\\..\\evil.png": b"x"})
    assert "which would be written outside its folder" in error_of(DataSource(str(bad), RATIOS, tmp_path / "cache"))
    assert not list(tmp_path.rglob("evil.png"))


def test_the_unicode_path_field_of_a_member_is_its_name(tmp_path: Path) -> None:
    raw = "玻璃/1.png".encode("gbk")
    name = "玻璃/1.png".encode()
    field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(raw)) + name
    with zipfile.ZipFile(tmp_path / "u.zip", "w") as packed:
        member = zipfile.ZipInfo("AAAA/1.png")
        member.extra = field
        packed.writestr(member, content(1))
    data = (tmp_path / "u.zip").read_bytes().replace(b"AAAA/1.png", raw)
    (tmp_path / "u.zip").write_bytes(data)
    folder = unpack(tmp_path / "u.zip", tmp_path / "cache")
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*.png")] == ["玻璃/1.png"]


def test_plain_names_keep_the_folder_that_older_versions_unpacked_to(tmp_path: Path) -> None:
    archive = pack(folder_of(tmp_path / "p", a=1, b=1), tmp_path / "p.zip")
    status = archive.stat()
    key = json.dumps([str(archive.resolve()), status.st_size, status.st_mtime_ns])
    assert unpack(archive, tmp_path / "cache").name == hashlib.sha256(key.encode()).hexdigest()[:16]


def test_hidden_photos_in_an_archive_are_named_as_in_a_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"a": 4, "b": 4, ".net": 2})
    plain = warnings_of(build_manifest(source(root))[1])
    assert warnings_of(build_manifest(source(pack(root, tmp_path / "p.tar")))[1]) == plain
    assert plain == ("hidden or made by the system, so its photos are left out: .net. Rename it to use them.",)
