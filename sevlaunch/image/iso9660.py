"""A CD-ROM image of a few files: ISO 9660 with Rock Ridge and Joliet. The same files give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO

_SECTOR = 2048
# ECMA-119, 8.1: the first volume descriptor, and the types of those that have dates and the last one.
_FIRST_DESCRIPTOR, _WITH_DATES, _LAST = 16, (1, 2), 255
# 8.4.26 to 8.4.29: four dates of 17 bytes; not specified is digits of 0 and the zone 0.
_VOLUME_DATES, _NO_VOLUME_DATES = slice(813, 881), (b"0" * 16 + b"\0") * 4
# 9.1: fields of a directory's record; 9.1.5: a date is the year since 1900, month, day, hour, minute, second, zone.
_ROOT, _EXTENT, _SIZE, _DATE, _NAME_LENGTH, _NAME = 156, 2, 10, 18, 32, 33
_FIXED_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
# IEEE P1282, 4.1.6: dates of a file in Rock Ridge's own field.
_ROCK_RIDGE_DATES, _FIELD_HEAD, _TF_HEAD = b"TF", 4, 5


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
    _fix_dates(image)
    return bytes(image)


def _fix_dates(image: bytearray) -> None:
    """Dates that do not depend on when, and in which time zone, the image was made. pycdlib has no way to say them."""
    for start in range(_FIRST_DESCRIPTOR * _SECTOR, len(image), _SECTOR):
        kind = image[start]
        if kind == _LAST:
            return
        if kind in _WITH_DATES:
            image[start + _VOLUME_DATES.start : start + _VOLUME_DATES.stop] = _NO_VOLUME_DATES
            root = start + _ROOT
            _fix_record(image, root)
            for record in _records(image, _number(image, root + _EXTENT) * _SECTOR, _number(image, root + _SIZE)):
                _fix_record(image, record)


def _records(image: bytearray, start: int, size: int) -> Iterator[int]:
    """Where the records of a folder begin; none crosses the end of a sector."""
    at = start
    while at < start + size:
        if image[at] == 0:
            at += _SECTOR - at % _SECTOR
            continue
        yield at
        at += image[at]


def _fix_record(image: bytearray, record: int) -> None:
    image[record + _DATE : record + _DATE + len(_FIXED_DATE)] = _FIXED_DATE
    end = record + image[record]
    name = image[record + _NAME_LENGTH]
    # A name of even length is followed by a byte that fills up: 9.1.12.
    field = record + _NAME + name + (1 - name % 2)
    while field + _FIELD_HEAD <= end and image[field + 2] >= _FIELD_HEAD:
        if image[field : field + 2] == _ROCK_RIDGE_DATES:
            for date in range(field + _TF_HEAD, field + image[field + 2], len(_FIXED_DATE)):
                image[date : date + len(_FIXED_DATE)] = _FIXED_DATE
        field += image[field + 2]


def _number(image: bytearray, at: int) -> int:
    return int.from_bytes(image[at : at + 4], "little")
