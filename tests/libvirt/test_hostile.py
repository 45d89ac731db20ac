"""XML from strangers: a clear error, soon, in bounded memory; and nothing that it names is opened or run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.libvirt.document import MAX_BYTES, MAX_DEPTH, MAX_ELEMENTS, MAX_NAME
from tests.conftest import ROOT, Command
from tests.libvirt.support import SEV, became, domain, imported

BOMB = """<?xml version="1.0"?>
<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
<domain type="kvm"><name>&d;</name></domain>"""
EXTERNAL = '<!DOCTYPE domain [<!ENTITY a SYSTEM "file:///etc/passwd">]><domain type="kvm"><name>&a;</name></domain>'
REMOTE_DTD = '<!DOCTYPE domain SYSTEM "http://localhost:1/x.dtd"><domain type="kvm"/>'
PARAMETER = '<!DOCTYPE domain [<!ENTITY % a SYSTEM "file:///dev/zero"> %a;]><domain/>'

REFUSED = {
    "an entity bomb": (BOMB, "DTD"),
    "an external entity": (EXTERNAL, "DTD"),
    "a DTD elsewhere": (REMOTE_DTD, "DTD"),
    "a parameter entity": (PARAMETER, "DTD"),
    "an undefined entity": ("<domain>&x;</domain>", "undefined entity"),
    "deep nesting": ("<domain>" + "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH + "</domain>", "levels deep"),
    "many elements": ("<domain>" + "<a/>" * MAX_ELEMENTS + "</domain>", f"more than {MAX_ELEMENTS} elements"),
    "too many bytes": ("<domain>" + " " * MAX_BYTES + "</domain>", f"at most {MAX_BYTES} bytes"),
    "a long name": (f"<domain><{'n' * (MAX_NAME + 1)}/></domain>", f"more than {MAX_NAME} characters"),
    "nothing": ("", "no element found"),
    "no XML": ("name: guest\n", "no well-formed XML: syntax error"),
    "half of it": ("<domain type='kvm'><name>", "unclosed token|no element found"),
    "two roots": ("<domain/><domain/>", "junk after document element"),
    "an attribute twice": ("<domain type='kvm' type='qemu'/>", "duplicate attribute"),
    "an unknown prefix": ("<domain><qemu:commandline/></domain>", "unbound prefix"),
    "another root": ("<network><name>default</name></network>", "wanted <domain>, found <network>"),
    "a NUL": ("<domain>\0</domain>", "not well-formed"),
}

ENCODINGS = {
    "UTF-16 that says UTF-8": ('<?xml version="1.0" encoding="UTF-8"?><domain/>'.encode("utf-16"), "encoding"),
    "latin-1 that says nothing": ("<domain type='kvm'><name>é</name></domain>".encode("latin-1"), "not well-formed"),
    "an encoding that is none": (b'<?xml version="1.0" encoding="no-such-one"?><domain/>', "encoding"),
    "several bytes a character": (b'<?xml version="1.0" encoding="shift_jis"?><domain/>', "encoding"),
    "a codec that is no encoding": (b'<?xml version="1.0" encoding="zlib"?><domain/>', "encoding"),
    "half a character": (b"<domain type='kvm'><name>\xe4\xbd</name></domain>", "not well-formed"),
    "an overlong slash": (b"<domain type='kvm'><name>\xc0\xaf</name></domain>", "not well-formed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_its_place(what: str) -> None:
    xml, message = REFUSED[what]
    with pytest.raises(ProfileError, match=message) as caught:
        imported(xml)
    assert caught.value.problems[0].location.startswith("d.xml")


@pytest.mark.parametrize("what", ENCODINGS)
def test_a_wrong_encoding_is_refused(what: str) -> None:
    content, message = ENCODINGS[what]
    with pytest.raises(ProfileError, match=message):
        imported(content)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "cp1252"])
def test_an_encoding_that_it_says_is_read(encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    xml = head + domain().replace("<name>guest", "<name>gäst")
    assert imported(xml.encode(encoding)).name == "gäst"


# Each takes the whole of what is allowed, with as many outcomes as it can have.
LARGE = {
    "disks": "<disk type='file'><source file='/d{0}'/><target dev='vda' bus='virtio'/></disk>",
    "the same disk": "<disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/></disk>",
    "broken interfaces": "<interface type='bridge'><source bridge='a bridge with blanks {0}'/></interface>",
    "unknown devices": "<zz a='{0}' b='1' c='2'/>",
    "port forwards": "<interface type='user'><backend type='passt'/><portForward proto='tcp'>"
    "<range start='1' end='65000'/></portForward></interface>",
    "arguments": "</devices><commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>"
    "<arg value='-x{0}'/></commandline><devices>",
}


def large(one: str) -> str:
    """A domain as large as may be."""
    found = ""
    number = 0
    room = MAX_BYTES - len(domain(SEV))
    pieces = []
    while room > 0 and number < MAX_ELEMENTS // one.count("<") - 10:
        found = one.format(number)
        room -= len(found)
        pieces.append(found)
        number += 1
    return domain("".join(pieces[:-1]), before=SEV)


@pytest.mark.parametrize("what", LARGE)
def test_the_largest_domain_is_read_within_bounds(what: str) -> None:
    result = imported(large(LARGE[what]))
    assert len(result.outcomes) < 5 * MAX_ELEMENTS
    assert len(result.text) < 16 * MAX_BYTES


RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
sys.argv[0] = "sevlaunch"
from sevlaunch.cli.main import main
main()
"""


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_a_hundred_megabytes_are_refused_in_little_memory(source: str, sevlaunch: Command, base: Path) -> None:
    file = base / "huge.xml"
    with file.open("wb") as stream:
        stream.write(b"<domain type='kvm'>")
        for _ in range(100):
            stream.write(b"<a/>" * (1 << 18))
    # The whole program has this; reading the file alone would take 100 MiB more.
    program = RUN.format(limit=220 << 20)
    with file.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", program, "import", str(file) if source == "file" else "-"],
            stdin=stream,
            env={**sevlaunch.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2, done.stderr
    assert f"wanted at most {MAX_BYTES} bytes" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endless_device_is_refused(sevlaunch: Command) -> None:
    result = sevlaunch("import", "/dev/zero", check=2)
    assert "it is a character device, and no regular file" in result.stderr


def test_no_more_of_a_file_is_read_than_a_domain_has(sevlaunch: Command, base: Path) -> None:
    with (base / "large.xml").open("wb") as large:
        large.truncate(1 << 42)
    result = sevlaunch("import", base / "large.xml", check=2)
    assert f"wanted at most {MAX_BYTES} bytes" in result.stderr


@pytest.mark.parametrize("name", ["dhCert", "session"])
def test_a_file_that_a_blob_names_is_not_opened(name: str) -> None:
    # /dev/urandom is base64, too, and has no end.
    security = f"<launchSecurity type='sev'><policy>3</policy><{name}>/dev/urandom</{name}></launchSecurity>"
    result = imported(domain(before=security))
    [(kind, reason)] = became(result, f"launchSecurity/{name}")
    assert kind == "refused"
    assert "found 9 bytes" in reason
    assert "/dev/urandom" not in result.text
    assert not result.works


def test_the_emulator_that_it_names_is_not_run(sevlaunch: Command, base: Path) -> None:
    program = base / "qemu"
    program.write_text(f"#!/bin/sh\ntouch {base}/ran\n")
    program.chmod(0o755)
    (base / "d.xml").write_text(domain(f"<emulator>{program}</emulator>"))
    result = sevlaunch("import", base / "d.xml")
    assert f"binary: {program}" in result.stdout
    assert not (base / "ran").exists()


def test_a_password_is_not_repeated() -> None:
    result = imported(domain("<graphics type='vnc' port='5901' passwd='HUSH'/>"))
    assert became(result, "devices/graphics@passwd")[0][0] == "corrected"
    assert "address:" not in result.text
    assert "HUSH" not in result.text + repr(result.outcomes)


@pytest.mark.parametrize("text", ["a&#10;security: none&#10;#", "x: y", "# no", "&quot;&apos;\\", "- a", "é\u2028b"])
def test_no_text_breaks_out_of_the_yaml(text: str) -> None:
    xml = domain(
        f"<disk type='file'><source file='/{text}'/><target dev='vda'/></disk>",
        before=f"<title>{text}</title><description>{text}</description>{SEV}",
    )
    result = imported(xml)
    assert result.problems == ()
    assert result.text.count("\nsecurity:") == 1
    assert "type: sev " in result.text
