"""A seed in the eyes of cloud-init: its own code merges the documents, its own schemas judge them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator  # type: ignore[import-untyped]
from msgspec.structs import replace

from sevlaunch.image.cloud_config import SeedFile, Wishes, user_data
from tests import needs
from tests.image.test_seed import KEY, WISHES

PROGRAM = Path(__file__).with_name("cloud_init.py")
OWN = """\
#cloud-config
users: [default, {name: guest}]
packages: [vim]
runcmd: [first]
manage_etc_hosts: false
package_update: false
timezone: UTC
"""


def seen(text: str) -> Any:
    """What cloud-init makes of user data."""
    done = subprocess.run(
        [sys.executable, PROGRAM],
        env={**os.environ, "PYTHONPATH": str(needs.cloud_init())},
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def alone(wishes: Wishes) -> Any:
    """The #cloud-config without user data of one's own."""
    return yaml.safe_load(user_data(replace(wishes, user_data=None), [KEY]))


def with_own(own: str) -> Any:
    """What cloud-init makes of a seed with this user data."""
    return seen(user_data(replace(WISHES, user_data=own), [KEY]))


def test_a_plain_one_is_one_document() -> None:
    assert seen(user_data(WISHES, [KEY])) == {"types": ["text/cloud-config"], "config": alone(WISHES)}


def test_lists_are_joined_and_of_all_else_one_s_own_counts() -> None:
    ours, config = alone(WISHES), with_own(OWN)["config"]
    assert config == {
        **ours,
        "users": ["default", {"name": "guest"}, *ours["users"]],
        "packages": ["vim", "htop"],
        "runcmd": ["first", *ours["runcmd"]],
        "manage_etc_hosts": False,
        "package_update": False,
        "timezone": "UTC",
    }


def test_one_s_own_may_say_how_it_is_merged() -> None:
    config = with_own(f"{OWN}merge_how: 'dict(replace)+list(append)'\n")["config"]
    assert config["users"] == ["default", {"name": "guest"}]
    assert config["write_files"] == alone(WISHES)["write_files"]


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        ("#!/bin/sh\necho one\n", "text/x-shellscript"),
        ("#cloud-boothook\necho one\n", "text/cloud-boothook"),
        ("## template: jinja\n#cloud-config\nfqdn: '{{ v1.instance_id }}'\n", "text/jinja2"),
        ("#!/bin/sh\necho MIME-Version: 1.0\n", "text/x-shellscript"),
    ],
)
def test_documents_of_other_kinds_go_beside_ours(own: str, kind: str) -> None:
    assert with_own(own) == {"types": [kind, "text/cloud-config"], "config": alone(WISHES)}


def test_an_archive_is_opened() -> None:
    found = with_own("#cloud-config-archive\n- {type: text/x-shellscript, content: '#!/bin/sh'}\n- '#cloud-config'\n")
    assert "text/x-shellscript" in found["types"]
    assert found["config"] == alone(WISHES)


def test_a_message_stays_the_documents_that_it_holds() -> None:
    own = user_data(Wishes("other", user_data="#!/bin/sh\n"), [])
    found = with_own(own)
    assert found["types"] == ["text/x-shellscript", "text/cloud-config", "text/cloud-config"]
    assert [user["name"] for user in found["config"]["users"]] == ["other", "admin"]


def test_a_file_with_a_message_in_it_makes_none_of_the_seed() -> None:
    content = "MIME-Version: 1.0\n\nhello\n"
    mail = replace(WISHES, files=(SeedFile("/mail", content.encode(), "0644", "root:root"),))
    file = {"path": "/mail", "permissions": "0644", "owner": "root:root", "content": content}
    found = seen(user_data(mail, [KEY]))
    assert found == {"types": ["text/cloud-config"], "config": {**alone(WISHES), "write_files": [file]}}


@pytest.mark.parametrize("wishes", [WISHES, Wishes(None), Wishes("root"), Wishes("admin")], ids=str)
def test_what_is_made_fits_cloud_init_s_schema(wishes: Wishes) -> None:
    file = needs.cloud_init() / "cloudinit/config/schemas/schema-cloud-config-v1.json"
    errors = Draft4Validator(json.loads(file.read_text())).iter_errors(alone(wishes))
    assert [error.message for error in errors] == []
