"""Which file system a directory lies on."""

from pathlib import Path

import pytest

from app.core import system
from app.core.system import Mount, mount_of

TABLE = r"""21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /srv rw,relatime shared:2 master:1 - nfs4 server:/srv rw,vers=4.2
23 21 0:41 / /srv/images rw - xfs /dev/sdb1 rw
24 21 0:42 / /srv/my\040images rw - tmpfs tmpfs rw
25 23 0:43 / /srv/images rw - btrfs /dev/sdc1 rw
"""

PLACES = [
    ("/home/images", Mount("/", "ext4")),
    ("/srv", Mount("/srv", "nfs4")),
    ("/srv/cache", Mount("/srv", "nfs4")),
    ("/srvs", Mount("/", "ext4")),
    ("/srv/my images/cache", Mount("/srv/my images", "tmpfs")),
    ("/srv/images/a/b", Mount("/srv/images", "btrfs")),
]


@pytest.mark.parametrize(("directory", "expected"), PLACES)
def test_the_deepest_and_latest_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, expected: Mount
) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    monkeypatch.setattr(system, "MOUNT_TABLE", str(tmp_path / "mountinfo"))
    assert mount_of(directory) == expected


def test_this_machine_tells(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is None or tmp_path.resolve().is_relative_to(found.point)
