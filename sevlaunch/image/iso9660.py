"""A CD-ROM image of a few files: ISO 9660 with Rock Ridge and Joliet. The same files give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from mmap import mmap

_SECTOR = 2048
# ECMA-119, 8.1: the first volume descriptor, and the types of those that have dates and the last one.
_FIRST_DESCRIPTOR, _WITH_DATES, _LAST = 16, (1, 2), 255
# 8.4.26 to 8.4.29: four dates of 17 bytes; not specified is digits of 0 and the zone 0.
_VOLUME_DATES, _NO_VOLUME_DATES = slice(813, 881), (b"0" * 16 + b"\0") * 4
# 9.1: fields of a directory's record; 9.1.5: a date is the year since 1900, month, day, hour, minute, second, zone.
_ROOT, _EXTENT, _SIZE, _DATE, _FLAGS, _NAME_LENGTH, _NAME = 156, 2, 10, 18, 25, 32, 33
# 9.1.6: a folder; and the names of a folder itself, and of the one above it: 7.6.2.
_FOLDER, _KNOWN = 2, (b"\0", b"\1")
_FIXED_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
# IEEE P1282, 4.1.6: dates of a file in Rock Ridge's own field.
_ROCK_RIDGE_DATES, _FIELD_HEAD, _TF_HEAD = b"TF", 4, 5
# SUSP, 5.1: where a record's fields go on that had no room in it: sector, offset and length, each in both byte orders.
_CONTINUED, _CE_SECTOR, _CE_OFFSET, _CE_LENGTH = b"CE", 4, 12, 20

Image = bytearray | mmap


def iso9660(label: str, files: Mapping[str, bytes]) -> bytes:
    """The image of a volume called ``label`` that has ``files`` in its root folder, by their names.

    Where such a name is of letters, digits, ``-`` and ``.`` it is found as it is by any reader of either extension.
    """
    # Few guests have a seed.
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    streams = [BytesIO(files[name]) for name in sorted(files)]
    for number, (name, stream) in enumerate(zip(sorted(files), streams, strict=True)):
        # ISO 9660's own names have no small letters and no dashes; readers take those of an extension.
        iso.add_fp(stream, len(files[name]), f"/FILE{number}.;1", name, f"/{name}", file_mode=0o100444)
    written = BytesIO()
    iso.write_fp(written)
    iso.close()
    image = bytearray(written.getvalue())
    fix_dates(image)
    return bytes(image)


def fix_dates(image: Image) -> None:
    """Dates that do not depend on when, and in which time zone, the image was made. pycdlib has no way to say them."""
    for start in range(_FIRST_DESCRIPTOR * _SECTOR, len(image), _SECTOR):
        kind = image[start]
        if kind == _LAST:
            return
        if kind in _WITH_DATES:
            image[start + _VOLUME_DATES.start : start + _VOLUME_DATES.stop] = _NO_VOLUME_DATES
            _fix_record(image, start + _ROOT)
            _fix_folder(image, start + _ROOT)


def _fix_folder(image: Image, folder: int) -> None:
    """The dates of all that is in the folder whose record begins at ``folder``, and in those below."""
    for record in _records(image, _number(image, folder + _EXTENT) * _SECTOR, _number(image, folder + _SIZE)):
        _fix_record(image, record)
        name = bytes(image[record + _NAME : record + _NAME + image[record + _NAME_LENGTH]])
        if image[record + _FLAGS] & _FOLDER and name not in _KNOWN:
            _fix_folder(image, record)


def _records(image: Image, start: int, size: int) -> Iterator[int]:
    """Where the records of a folder begin; none crosses the end of a sector."""
    at = start
    while at < start + size:
        if image[at] == 0:
            at += _SECTOR - at % _SECTOR
            continue
        yield at
        at += image[at]


def _fix_record(image: Image, record: int) -> None:
    image[record + _DATE : record + _DATE + len(_FIXED_DATE)] = _FIXED_DATE
    name = image[record + _NAME_LENGTH]
    # A name of even length is followed by a byte that fills up: 9.1.12.
    _fix_fields(image, record + _NAME + name + (1 - name % 2), record + image[record])


def _fix_fields(image: Image, field: int, end: int) -> None:
    """The dates in the fields of Rock Ridge from ``field`` to ``end``, and where they go on."""
    while field + _FIELD_HEAD <= end and image[field + 2] >= _FIELD_HEAD:
        kind = bytes(image[field : field + 2])
        if kind == _ROCK_RIDGE_DATES:
            for date in range(field + _TF_HEAD, field + image[field + 2], len(_FIXED_DATE)):
                image[date : date + len(_FIXED_DATE)] = _FIXED_DATE
        elif kind == _CONTINUED:
            start = _number(image, field + _CE_SECTOR) * _SECTOR + _number(image, field + _CE_OFFSET)
            _fix_fields(image, start, start + _number(image, field + _CE_LENGTH))
        field += image[field + 2]


def _number(image: Image, at: int) -> int:
    return int.from_bytes(image[at : at + 4], "little")
