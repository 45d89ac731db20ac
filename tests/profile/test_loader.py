"""Layers of a profile: defaults, extends, the file, --set; names, and where relative paths start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import ProfileError, UsageError
from sevlaunch.profile.loader import LoadedProfile, load, loads
from sevlaunch.profile.model import Profile, UserNetwork

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below the test's folder."""

    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write_file


def set_on(text: str, *overrides: str) -> Profile:
    """The profile ``text`` with ``--set`` options."""
    return loads(text, file="p.yaml", overrides=overrides).profile


def lines(call: Callable[[], Any]) -> list[str]:
    """The problems that the call is refused with."""
    with pytest.raises(ProfileError) as caught:
        call()
    return [str(problem) for problem in caught.value.problems]


# Defaults and names


def test_a_profile_of_nothing_but_a_comment_key_gets_every_default() -> None:
    assert loads("name: x\n").profile == Profile(name="x")
    assert loads("name: x\n").profile.cpu.count == 1


def test_the_name_is_the_files_stem_and_its_own_and_then_the_override(write: Write) -> None:
    assert load(write("web.v2.yaml", "cpus: 1\n")).profile.name == "web.v2"
    assert load(write("web.yaml", "name: own\n")).profile.name == "own"
    assert load(write("web.yaml", "name: own\n"), name="given").profile.name == "given"
    assert load(write("web.yaml", "name: own\n"), overrides=["name=set"]).profile.name == "set"
    assert load(write("web.yaml", "name:\n")).profile.name == "web"


def test_a_bad_name_is_shown_where_it_came_from(write: Write) -> None:
    stem = write("-x.yaml", "cpus: 1\n")
    assert lines(lambda: load(stem))[0].startswith(f"{stem} (the file's name): name: wanted 1 to 64 bytes")
    assert lines(lambda: loads("cpus: 1\n", name="a/b"))[0].startswith("--name: name: wanted 1 to 64 bytes")


@pytest.mark.parametrize("name", ["'.hidden'", "-dash", "a/b", "''", '"a\\nb"', "é" * 33, "'..'"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    assert "wanted 1 to 64 bytes" in lines(lambda: loads(f"name: {name}\n"))[0]


@pytest.mark.parametrize("name", ["a", "web server", "é" * 32, "a.b-c_d", "x" * 64])
def test_a_name_that_is_one_folder_name_is_taken(name: str) -> None:
    assert loads(f"name: '{name}'\n").profile.name == name


def test_a_key_with_nothing_behind_it_is_as_good_as_none() -> None:
    assert loads("name: x\ndisks:\n#  - {path: a}\nmemory:\nextends:\n").profile == Profile(name="x")


def test_environment_variables_and_home_are_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISK", "/surprise")
    profile = loads("disks: [{path: $DISK/a}, {path: ~/b}]\n", base=Path("/base")).profile
    assert [disk.path for disk in profile.disks] == ["/base/$DISK/a", "/base/~/b"]


def test_relative_paths_start_at_the_profile_and_not_at_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("sub/p.yaml", "disks: [{path: a.raw}, {path: ../b.raw}, {path: /c.raw}]\nqemu: {binary: bin/qemu}\n")
    monkeypatch.chdir(tmp_path)
    profile = load(Path("sub/p.yaml")).profile
    assert [disk.path for disk in profile.disks] == [f"{tmp_path}/sub/a.raw", f"{tmp_path}/b.raw", "/c.raw"]
    assert profile.qemu.binary == f"{tmp_path}/sub/bin/qemu"


def test_relative_paths_of_set_start_at_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("sub/p.yaml", "disks: [{path: a.raw}]\n")
    monkeypatch.chdir(tmp_path)
    assert load(file, overrides=["disks.0.path=b.raw"]).profile.disks[0].path == f"{tmp_path}/b.raw"


# extends


def test_a_profile_builds_on_another_but_has_a_name_of_its_own(write: Write) -> None:
    write("base.yaml", "name: base\ncpus: 4\nmemory: 2G\n")
    profile = load(write("child.yaml", "extends: base.yaml\nmemory: 4G\n")).profile
    assert (profile.name, profile.cpu.count, profile.memory.size) == ("child", 4, 4 << 30)


def test_of_several_bases_the_last_counts_and_the_file_above_all(write: Write) -> None:
    write("a.yaml", "cpus: 1\nmemory: 1G\nconsole: none\n")
    write("b.yaml", "cpus: 2\nmemory: 2G\n")
    profile = load(write("c.yaml", "extends: [a.yaml, b.yaml]\ncpus: 3\n")).profile
    assert (profile.cpu.count, profile.memory.size, profile.console) == (3, 2 << 30, "none")


def test_a_chain_is_followed_and_a_diamond_is_no_circle(write: Write) -> None:
    write("root.yaml", "cpus: 7\n")
    write("left.yaml", "extends: root.yaml\nmemory: 2G\n")
    write("right.yaml", "extends: root.yaml\nconsole: none\n")
    profile = load(write("top.yaml", "extends: [left.yaml, right.yaml]\n")).profile
    assert (profile.cpu.count, profile.memory.size, profile.console) == (7, 2 << 30, "none")


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_refused_where_it_closes(length: int, write: Write) -> None:
    files = [write(f"{index}.yaml", f"cpus: 1\nextends: {(index + 1) % length}.yaml\n") for index in range(length)]
    (line,) = lines(lambda: load(files[0]))
    assert ".yaml:2:10: extends: the profiles extend each other in a circle" in line


def test_a_chain_without_end_is_refused(write: Write) -> None:
    for index in range(30):
        write(f"{index}.yaml", f"extends: {index + 1}.yaml\n")
    (line,) = lines(lambda: load(write("top.yaml", "extends: 0.yaml\n")))
    assert "15.yaml:1:10: extends: more than 16 profiles extend one another" in line


def test_a_bomb_of_extends_ends_with_a_clear_error(write: Write) -> None:
    for index in range(12):
        write(f"{index}.yaml", f"extends: [{', '.join([f'{index + 1}.yaml'] * 10)}]\n")
    write("12.yaml", "cpus: 1\n")
    (line,) = lines(lambda: load(write("top.yaml", "extends: 0.yaml\n")))
    assert "extends: the profile builds on more than 100 others" in line


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("missing.yaml", "can't read the profile to extend: can't read the profile: No such file"),
        ("'.'", "can't read the profile to extend: can't read the profile: Is a directory"),
        ("a" * 5000, "can't read the profile to extend: can't read the profile: File name too long"),
        ("5", "wanted the path of a profile, or a list of paths"),
        ("[5]", "wanted the path of a profile, or a list of paths"),
        ("''", "wanted the path of a profile, or a list of paths"),
        ("{a: b}", "wanted the path of a profile, or a list of paths"),
    ],
)
def test_what_can_not_be_extended_is_refused_where_it_is_named(value: str, message: str, write: Write) -> None:
    file = write("p.yaml", f"cpus: 1\nextends: {value}\n")
    (line,) = lines(lambda: load(file))
    assert line.startswith(f"{file}:2:1")
    assert f": extends: {message}" in line


def test_a_base_with_nul_in_its_path_is_refused(write: Write) -> None:
    file = write("p.yaml", 'extends: "a\\0b"\n')
    assert "can't read the profile to extend" in lines(lambda: load(file))[0]


def test_a_base_that_is_no_yaml_is_refused_at_its_own_line(write: Write) -> None:
    broken = write("broken.yaml", "a: [\n")
    assert lines(lambda: load(write("p.yaml", "extends: broken.yaml\n")))[0].startswith(f"{broken}:2:1: no valid YAML")


def test_a_mistake_in_a_base_is_shown_in_the_base(write: Write) -> None:
    write("base.yaml", "cpus: 1\nmemroy: 2G\n")
    (line,) = lines(lambda: load(write("p.yaml", "extends: base.yaml\n")))
    assert line.endswith("base.yaml:2:1: memroy: unknown key 'memroy'; did you mean 'memory'?")


def test_bases_and_paths_are_relative_to_the_file_that_says_them(write: Write, tmp_path: Path) -> None:
    write("lib/deep/root.yaml", "disks: [{path: root.raw}]\n")
    write("lib/base.yaml", "extends: deep/root.yaml\nboot: {kernel: vmlinuz}\n")
    profile = load(write("p.yaml", "extends: lib/base.yaml\nboot: {initrd: initrd.img}\n")).profile
    assert profile.disks[0].path == f"{tmp_path}/lib/deep/root.raw"
    assert profile.boot.kernel == f"{tmp_path}/lib/vmlinuz"
    assert profile.boot.initrd == f"{tmp_path}/initrd.img"


def test_lists_replace_and_mappings_merge(write: Write) -> None:
    write("base.yaml", "disks: [{path: /a}, {path: /b}]\ncpu: {model: EPYC, count: 2}\n")
    profile = load(write("p.yaml", "extends: base.yaml\ndisks: [{path: /c}]\ncpu: {count: 8}\n")).profile
    assert [disk.path for disk in profile.disks] == ["/c"]
    assert (profile.cpu.model, profile.cpu.count) == ("EPYC", 8)


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("memory: {size: 2G, hugepages: 2M}", "memory: 4G"),
        ("memory: 2G", "memory: {size: 4G, hugepages: 2M}"),
        ("memory: {hugepages: 2M}", "memory: 4G"),
    ],
)
def test_short_forms_merge_with_long_ones(below: str, above: str, write: Write) -> None:
    write("base.yaml", below)
    memory = load(write("p.yaml", f"extends: base.yaml\n{above}\n")).profile.memory
    assert (memory.size, memory.hugepages) == (4 << 30, "2M")


@pytest.mark.parametrize(
    ("below", "above"), [("cpus: 2", "cpus: 4"), ("cpu: {count: 2}", "cpus: 4"), ("cpus: 2", "cpu: {count: 4}")]
)
def test_cpus_and_cpu_count_are_the_same_in_every_layer(below: str, above: str, write: Write) -> None:
    write("base.yaml", below)
    assert load(write("p.yaml", f"extends: base.yaml\n{above}\n")).profile.cpu.count == 4


def test_cpus_and_cpu_count_in_one_file_contradict_each_other() -> None:
    assert lines(lambda: loads("cpu: {count: 2}\ncpus: 4\n", file="p.yaml")) == [
        "p.yaml:2:1: cpus: cpus is the short form of cpu.count, which stands at p.yaml:1:14 already"
    ]


def test_a_switch_turns_off_what_a_base_turned_on(write: Write) -> None:
    write("base.yaml", "rng: {source: /dev/random}\nballoon: on\n")
    profile = load(write("p.yaml", "extends: base.yaml\nrng: false\nballoon: no\n")).profile
    assert (profile.rng, profile.balloon) == (None, None)
    rng = load(write("q.yaml", "extends: base.yaml\nrng: true\n")).profile.rng
    assert rng is not None
    assert rng.source == "/dev/random"


def test_firmware_auto_takes_back_what_a_base_names(write: Write) -> None:
    write("base.yaml", "firmware: {code: /c, vars: /v}\n")
    assert load(write("same.yaml", "extends: base.yaml\n")).profile.firmware.code == "/c"
    firmware = load(write("p.yaml", "extends: base.yaml\nfirmware: auto\n")).profile.firmware
    assert (firmware.code, firmware.vars) == (None, None)


def test_merge_keys_are_refused_with_the_hint_for_extends() -> None:
    assert lines(lambda: loads("cpu: &c {count: 1}\nmemory:\n  <<: *c\n  size: 1G\n", file="p.yaml")) == [
        "p.yaml:3:3: memory.<<: unknown key '<<': YAML merge keys are not supported; use extends"
    ]


# --set


@pytest.mark.parametrize(
    ("text", "override", "path", "value"),
    [
        ("cpus: 2", "cpu.count=8", "cpu.count", 8),
        ("cpus: 2", "cpus=8", "cpu.count", 8),
        ("cpu: {count: 2}", "cpus=8", "cpu.count", 8),
        ("name: x", "cpus=8", "cpu.count", 8),
        ("memory: 2G", "memory=4G", "memory.size", 4 << 30),
        ("memory: {size: 2G}", "memory=4G", "memory.size", 4 << 30),
        ("memory: 2G", "memory.hugepages=1G", "memory.size", 2 << 30),
        ("memory: 2G", "memory={size: 1G, hugepages: 2M}", "memory.hugepages", "2M"),
        ("security: none", "security=sev-es", "security.type", "sev-es"),
        ("security: sev", "security.policy=0x32", "security.policy", 0x32),
        ("security: sev", "security.policy=[sev, domain]", "security.policy", 0x30),
        ("name: x", "video=std", "video.type", "std"),
        ("rng: true", "rng=off", "rng", None),
        ("rng: false", "rng.source=/dev/random", "rng.source", "/dev/random"),
        ("disks: [{path: /a}]", "disks.0.path=/b", "disks.0.path", "/b"),
        ("disks: [{path: /a}]", "disks.1.path=/b", "disks.1.path", "/b"),
        ("disks: [{path: /a}]", "disks.1={path: /b, format: qcow2}", "disks.1.format", "qcow2"),
        ("name: x", "disks=[{path: /b}]", "disks.0.path", "/b"),
        (
            "boot: {kernel: /k}",
            "boot.cmdline=console=ttyS0 root=/dev/vda",
            "boot.cmdline",
            "console=ttyS0 root=/dev/vda",
        ),
        ("boot: {kernel: /k}", "boot.cmdline=a: b: c", "boot.cmdline", "a: b: c"),
        ("boot: {kernel: /k}", "boot.cmdline=[unclosed", "boot.cmdline", "[unclosed"),
        (
            "networks: [{type: user, forward: []}]",
            "networks.0.forward.0=tcp:2222:22",
            "networks.0.forward.0",
            "tcp:2222:22",
        ),
        ("name: x", "name='5'", "name", "5"),
        ("name: x", " cpu.count =8", "cpu.count", 8),
        ("console: none", "console=null", "console", "serial"),
        ("firmware: {code: /c}", "firmware=auto", "firmware.code", None),
    ],
)
def test_set_sets_a_value(text: str, override: str, path: str, value: object) -> None:
    found: Any = set_on(text, override)
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value


def test_the_last_set_of_a_value_counts() -> None:
    assert set_on("name: x", "cpus=2", "cpus=3", "cpu.count=4").cpu.count == 4
    assert set_on("name: x", "cpu.count=4", "cpus=3").cpu.count == 3


def test_set_appends_to_a_list_one_by_one() -> None:
    profile = set_on("disks: [{path: /a}]", "disks.1.path=/b", "disks.2.path=/c")
    assert [disk.path for disk in profile.disks] == ["/a", "/b", "/c"]
    (network,) = set_on("networks: []", "networks.0.type=user").networks
    assert isinstance(network, UserNetwork)


def test_set_wins_over_extends(write: Write) -> None:
    write("base.yaml", "cpus: 1\n")
    file = write("p.yaml", "extends: base.yaml\ncpus: 2\n")
    assert load(file, overrides=["cpus=3"]).profile.cpu.count == 3


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("cpus=many", "--set cpus=many: cpu.count: wanted a whole number, found 'many'"),
        ("cpu.cuont=2", "--set cpu.cuont=2: cpu.cuont: unknown key 'cuont'; did you mean 'count'?"),
        (
            "cpu={count: 1, count: 2}",
            "--set cpu={count: 1, count: 2}: duplicate key 'count': "
            "it stands at --set cpu={count: 1, count: 2} already",
        ),
        ("disks.5.path=/a", "--set disks.5.path=/a: wanted the number of a list entry from 0 to 1, found '5'"),
        ("disks.x=/a", "--set disks.x=/a: wanted the number of a list entry from 0 to 1, found 'x'"),
        ("disks.²=/a", "--set disks.²=/a: wanted the number of a list entry from 0 to 1, found '²'"),
        ("disks.-1=/a", "--set disks.-1=/a: wanted the number of a list entry from 0 to 1, found '-1'"),
        ("cpu..count=1", "--set cpu..count=1: wanted PATH=VALUE such as cpu.count=8, found path 'cpu..count'"),
        ("shares.0.tag=x", "--set shares.0.tag=x: shares: wanted a list, found {'0': {'tag': 'x'}}"),
        ("=1", "--set =1: wanted PATH=VALUE such as cpu.count=8, found path ''"),
        ("console=x:²", "--set console=x:²: console: wanted one of serial, virtio, none; found 'x:²'"),
        ("cpu.count=", "--set cpu.count=: cpu.count: wanted a whole number, found None"),
        (
            "accel=tcg",
            "--set accel=tcg: accel: an encrypted guest needs KVM: use accel: kvm, or security: none with tcg",
        ),
    ],
)
def test_a_bad_set_is_shown_as_it_was_given(override: str, line: str) -> None:
    assert lines(lambda: set_on("disks: [{path: /a}]\nsecurity: sev\n", override)) == [line]


@pytest.mark.parametrize("override", ["cpus", "", "cpu.count:8"])
def test_a_set_without_a_value_is_wrong_usage(override: str) -> None:
    with pytest.raises(UsageError, match="wanted --set PATH=VALUE"):
        set_on("name: x", override)


@pytest.mark.parametrize("override", ["extends=other.yaml", "extends.0=other.yaml"])
def test_extends_can_not_be_set(override: str) -> None:
    with pytest.raises(UsageError, match="can't change extends"):
        set_on("name: x", override)


@pytest.mark.parametrize(
    "override",
    ["a" + ".b" * 5000 + "=1", "name=" + "[" * 100_000, "name=" + "9" * 5000, "cpus=a:" + "9" * 5000, "name=\udcff"],
)
def test_a_hostile_set_is_refused_and_no_crash(override: str) -> None:
    assert lines(lambda: set_on("name: x", override))


def test_ten_thousand_unknown_keys_are_all_reported() -> None:
    found = lines(lambda: loads("".join(f"k{index}: 1\n" for index in range(10_000)), file="p.yaml"))
    assert len(found) == 10_000
    assert found[0].startswith("p.yaml:1:1: k0: unknown key 'k0'")
    assert found[-1].startswith("p.yaml:10000:1: k9999: unknown key 'k9999'")


@pytest.mark.parametrize(
    "text", ['name: "a\\0b"', "cpu: {count: !custom 4}", f"cpu: {{count: {'9' * 5000}}}", "boot: {kernel: !!int x}"]
)
def test_a_value_that_can_not_be_read_is_one_mistake_and_not_two(text: str) -> None:
    assert len(lines(lambda: loads(f"{text}\n"))) == 1


def test_security_none_leaves_nothing_of_the_base_s_encryption(write: Write) -> None:
    write("base.yaml", "security: {type: sev, policy: 0x33, cbitpos: 51}\n")
    for text in ("security: none", "security: {type: none}"):
        assert load(write("child.yaml", f"extends: base.yaml\n{text}\n")).profile.security.type == "none"
    es = load(write("es.yaml", "extends: base.yaml\nsecurity: {type: sev-es, policy: 0x37}\n")).profile.security
    assert es.type == "sev-es"
    assert es.cbitpos == 51


@pytest.mark.parametrize("text", ["😀", "a\x7fb", "a\x85b", "a\u2028b", "\ud7ff", "\ufeff", "back\\ud83dslash", "ü"])
def test_any_text_of_plain_data_is_itself(text: str) -> None:
    data = {"name": "g", "boot": {"kernel": "/k", "cmdline": text}}
    assert LoadedProfile.from_dict(data).profile.boot.cmdline == text
